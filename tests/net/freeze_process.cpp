// SPDX-License-Identifier: MIT
// `tcpmig freeze` and `tcpmig resume`: a connection leaves a process that knows nothing of it, and goes on in another program.
#include <fcntl.h>
#include <linux/bpf.h>  // the TCP states
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "catch.hpp"
#include "conn_world.hpp"
#include "freeze_bench.hpp"
#include "lab/payload.hpp"
#include "lab/process.hpp"
#include "manual/snapshot_file.hpp"
#include "sys/check.hpp"
#include "sys/netlink.hpp"
#include "sys/sock_diag.hpp"

using namespace conn_test;
using namespace freeze_test;
using namespace std::chrono_literals;

namespace {

constexpr std::uint8_t kFin = 1, kRst = 4;  // RFC 9293, 3.1

bool has_ended_connection(const std::vector<Sniffer::Packet>& packets, std::uint8_t flags) {
  return std::ranges::any_of(packets, [&](const Sniffer::Packet& packet) {
    return !packet.outgoing && (packet.tcp_flags & flags) != 0;
  });
}

Bytes read_to_end(int fd) {
  Bytes all;
  std::byte buffer[65'536];
  for (;;) {
    const ssize_t got = sys::check("recv", ::recv(fd, buffer, sizeof buffer, 0));
    if (got == 0) return all;
    all.insert(all.end(), buffer, buffer + got);
  }
}

/// As the victim makes it.
Bytes victims_pattern(std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i % 251);
  return bytes;
}

std::size_t total_of(const std::string& said) {
  const auto at = said.find("total ");
  REQUIRE(at != std::string::npos);
  return std::stoul(said.substr(at + 6));
}

/// What every process must have seen by the end, whatever it was doing.
void check_saw_closed_connection(const std::string& said) {
  INFO(said);
  CHECK(said.find("error " + std::to_string(ECONNABORTED)) != std::string::npos);
  CHECK(said.find("then 0\nsend error " + std::to_string(EPIPE)) != std::string::npos);
  CHECK(said.ends_with("closed\n"));
}

}  // namespace

TEST_CASE("freeze: a connection leaves a process whatever that does, and goes on elsewhere") {
  if (cannot_run_here()) return;
  for (const std::string mode : {"read", "poll", "epoll", "select", "send", "sleep"}) {
    CAPTURE(mode);
    World world;
    Bench bench;
    const auto family = mode == "read"   ? Family::kMapped
                        : mode == "poll" ? Family::kIpv6
                                         : Family::kIpv4;
    Pair pair = connect_pair(world, world.a, family);
    Victim victim(bench, std::move(pair.server), mode);
    const Bytes unread = bytes_of(mode == "sleep" ? "not read. " : "");
    send_all(pair.client.get(), unread);
    victim.await_sleep();
    Sniffer sniffer(world.client);
    const Output frozen = bench.tcpmig(
        {"freeze", "--pid", victim.pid(), "--fd", "0", "-o", bench.snapshot(), "--json"});
    INFO(frozen.error);
    REQUIRE(frozen.code == 0);
    const auto json = nlohmann::json::parse(frozen.out);
    CHECK(json.at("taken") == true);
    CHECK(json.at("processes") == std::vector<int>{std::stoi(victim.pid())});
    CHECK(json.at("snapshot").at("received").at("bytes") == unread.size());
    std::filesystem::remove(bench.file("marker"));  // "sleep" goes on
    CHECK(victim.wait() == 0);
    check_saw_closed_connection(victim.said());
    const Bytes between = bytes_of("while it was nowhere. ");
    send_all(pair.client.get(), between);
    CHECK_FALSE(has_ended_connection(sniffer.take_after_marker(world), kRst | kFin));
    // first the connection is there, then packets may come: to one that finds nothing the kernel would answer RST
    Resumed resumed(bench, {"--", "cat"}, world.b);
    wait_until("cat", [&] { return resumed.program() == "cat"; });
    world.route_to(world.b);
    const Bytes after = bytes_of("and after it");
    send_all(pair.client.get(), after);
    REQUIRE(::shutdown(pair.client.get(), SHUT_WR) == 0);
    Bytes expected = mode == "send" ? victims_pattern(total_of(victim.said())) : Bytes();
    for (const Bytes* part : {&unread, &between, &after})
      expected.insert(expected.end(), part->begin(), part->end());
    REQUIRE(read_to_end(pair.client.get()) == expected);
    INFO(resumed.error());
    CHECK(resumed.wait() == 0);
    // a capture of megabytes is not whole; but then the client's own view is enough: a RST would have been an error of recv()
    if (mode != "send") CHECK_FALSE(has_ended_connection(sniffer.take_after_marker(world), kRst));
  }
}

TEST_CASE("freeze: the connection goes on at the same address while its client sends") {
  if (cannot_run_here()) return;
  World world;
  Bench bench;
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  const Victim victim(bench, std::move(pair.server), "sleep");
  Sniffer sniffer(world.client);
  std::atomic<bool> stop{false}, reset{false};
  Bytes all;
  std::thread client([&] {
    for (unsigned seed = 1; !stop; ++seed) {
      const Bytes more = pattern(300, seed);
      if (::send(pair.client.get(), more.data(), more.size(), MSG_NOSIGNAL) !=
          static_cast<ssize_t>(more.size()))
        return;
      all.insert(all.end(), more.begin(), more.end());
      if (has_ended_connection(sniffer.take(), kRst)) reset = true;
      std::this_thread::sleep_for(5ms);
    }
    ::shutdown(pair.client.get(), SHUT_WR);
  });
  const auto move = [&](const std::string& pid, const std::vector<std::string>& program) {
    std::filesystem::remove(bench.snapshot());
    const Output frozen =
        bench.tcpmig({"freeze", "--pid", pid, "--fd", "0", "-o", bench.snapshot()});
    INFO(frozen.error);
    CHECK(frozen.code == 0);
    return std::make_unique<Resumed>(bench, program, world.a);
  };
  const auto idle = move(victim.pid(), {"--", "sleep", "100"});
  wait_until("sleep", [&] { return idle->program() == "sleep"; });
  const auto cat = move(std::to_string(idle->pid()), {"--", "cat"});
  stop = true;
  client.join();
  Bytes came;
  REQUIRE_NOTHROW(came = read_to_end(pair.client.get()));
  CHECK(came == all);
  CHECK_FALSE(reset);
}

TEST_CASE("freeze: whatever fails, the connection goes on in its process") {
  if (cannot_run_here()) return;
  World world;
  Bench bench;
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  const UniqueFd kept(::dup(pair.server.get()));  // to talk by
  Victim victim(bench, std::move(pair.server), "sleep");
  Sniffer sniffer(world.client);
  const auto goes_on = [&] {
    CHECK(victim.state() != "t");
    CHECK(talk(pair.client.get(), kept.get(), 10'000));
  };
  const auto freeze = [&](const std::string& file) {
    return bench.tcpmig({"freeze", "--pid", victim.pid(), "--fd", "0", "-o", file});
  };
  CHECK(freeze(bench.file("none") / "c.snap").code == 1);
  goes_on();
  std::ofstream(bench.snapshot()) << "precious";
  const Output exists = freeze(bench.snapshot());
  CHECK(exists.code == 2);
  CHECK(exists.error.find("exists: name another file, or say --force") != std::string::npos);
  goes_on();
  SECTION("the disk is full when the connection is frozen already") {
    const Output full = bench.run({"sh", "-c", "ulimit -f 0; trap '' XFSZ; exec \"$0\" \"$@\"",
                                   Bench::program(), "freeze", "--force", "--pid", victim.pid(),
                                   "--fd", "0", "-o", bench.snapshot()});
    CHECK(full.code != 0);
    CHECK(read_text(bench.snapshot()) == "precious");
    goes_on();
  }
  SECTION("somebody has the place of the connection already") {
    const auto in = world.a.enter();
    const Output first = bench.tcpmig(
        {"freeze", "--pid", victim.pid(), "--fd", "0", "-o", bench.file("kept"), "--keep"});
    CHECK(first.code == 0);
    goes_on();
    CHECK(tcpmig::manual::read_snapshot(bench.file("kept")).state ==
          tcpmig::TcpState::kEstablished);
  }
  CHECK_FALSE(has_ended_connection(sniffer.take_after_marker(world), kRst | kFin));
  std::size_t files = 0;  // nothing half-made is left
  for (const auto& entry : std::filesystem::directory_iterator(bench.file("x").parent_path()))
    if (entry.path().filename().string().starts_with(".c.snap")) ++files;
  CHECK(files == 0);
}

TEST_CASE("freeze: killed at any moment it has either done all or nothing") {
  if (cannot_run_here()) return;
  World world;
  Bench bench;
  unsigned taken = 0, kept = 0;
  for (int delay = 0; delay < 24; ++delay) {
    CAPTURE(delay);
    world.route_to(world.a);
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    const UniqueFd other(::dup(pair.server.get()));
    Victim victim(bench, std::move(pair.server), "sleep");
    std::filesystem::remove(bench.snapshot());
    const UniqueFd nothing = Bench::null();
    const pid_t freezer = lab::start({.argv = {Bench::program(), "freeze", "--pid", victim.pid(),
                                               "--fd", "0", "-o", bench.snapshot()},
                                      .output = nothing.get(),
                                      .error = nothing.get()});
    // from before it has begun to after it has ended
    std::optional<int> ended;
    for (int i = 0; i < delay * 10 && !ended; ++i) {
      std::this_thread::sleep_for(1ms);
      ended = lab::poll_exit(freezer);
    }
    if (!ended) {
      ::kill(freezer, SIGKILL);
      lab::wait_for(freezer);
    }
    wait_until("the victim goes on", [&] { return victim.state() != "t"; });
    wait_until("its keeper is done", [&] {
      const bool there = std::filesystem::exists(bench.snapshot());
      return there == (info_of(other.get()).tcpi_state == BPF_TCP_CLOSE);
    });
    if (info_of(other.get()).tcpi_state == BPF_TCP_CLOSE) {
      ++taken;
      Resumed cat(bench, {"--", "cat"}, world.b);
      wait_until("cat", [&] { return cat.program() == "cat"; });
      world.route_to(world.b);
      const Bytes text = pattern(5'000);
      send_all(pair.client.get(), text);
      CHECK(receive_exactly(pair.client.get(), text.size()) == text);
    } else {
      ++kept;
      wait_until("it is given back", [&] {
        int waiting = 0;
        return ::recv(other.get(), &waiting, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
      });
      CHECK(talk(pair.client.get(), other.get(), 10'000));
    }
  }
  CHECK(taken > 0);
  CHECK(kept > 0);
}

TEST_CASE("freeze: what is no connection, or cannot be moved, is refused by name") {
  if (cannot_run_here()) return;
  World world;
  Bench bench;
  const auto refuse = [&](UniqueFd fd, const std::string& number, int code,
                          const std::string& text) {
    const UniqueFd nothing = Bench::null();
    const pid_t owner =
        lab::start({.argv = {"sleep", "100"}, .input = fd.get(), .death_signal = SIGKILL});
    const Output output = bench.tcpmig(
        {"freeze", "--pid", std::to_string(owner), "--fd", number, "-o", bench.snapshot()});
    INFO(output.error);
    CHECK(output.code == code);
    CHECK(output.error.find(text) != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(bench.snapshot()));
    ::kill(owner, SIGKILL);
    lab::wait_for(owner);
  };
  refuse(Bench::null(), "0", 2, "is not a socket");
  refuse(Bench::null(), "77", 5, "has no descriptor 77");
  refuse(UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), "0", 2, "is not a TCP socket");
  refuse(UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), "0", 2, "is not a TCP socket");
  refuse(UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), "0", 1, "not connected");
  refuse(listen_at(world.a, Family::kIpv4), "0", 2, "is a listener");
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  REQUIRE(::send(pair.client.get(), "!", 1, MSG_OOB) == 1);
  wait_until("urgent data", [&] { return info_of(pair.server.get()).tcpi_bytes_received > 0; });
  refuse(std::move(pair.server), "0", 1, "urgent data is waiting");
  const Output none =
      bench.tcpmig({"freeze", "--pid", "4194303", "--fd", "0", "-o", bench.snapshot()});
  CHECK(none.code == 5);
  CHECK(none.error == "tcpmig: there is no process 4194303\n");
  const Output user =
      bench.run({"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                 Bench::program(), "freeze", "--pid", "1", "--fd", "0", "-o", bench.snapshot()});
  CHECK(user.code == 3);
  CHECK(user.error.find("takes root") != std::string::npos);
}

TEST_CASE("resume: another address, another descriptor, and a program that is not there") {
  if (cannot_run_here()) return;
  World world;
  Bench bench;
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  Victim victim(bench, std::move(pair.server), "sleep");
  Sniffer sniffer(world.client);
  REQUIRE(
      bench.tcpmig({"freeze", "--pid", victim.pid(), "--fd", "0", "-o", bench.snapshot()}).code ==
      0);
  const auto resume = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {"resume", bench.snapshot()});
    return bench.tcpmig(words, world.b.fd());
  };
  CHECK(resume({"--", "no-such-program"}).code == 5);
  CHECK(resume({"--", "/etc/passwd"}).code == 2);
  CHECK(resume({}).code == 2);
  CHECK(resume({"--local", "nowhere", "--", "cat"}).code == 2);
  CHECK(resume({"--local", "2001:db8::10", "--", "cat"}).code == 2);
  CHECK(resume({"--netns", "no-such-netns", "--", "cat"}).code == 5);
  CHECK(sniffer.take_after_marker(world).empty());
  const auto peer = tcpmig::manual::read_snapshot(bench.snapshot()).peer;
  {
    const auto in = world.b.enter();
    sys::Netlink netlink;
    netlink.add_address(netlink.find_link("lo")->index,
                        sys::Prefix::parse("192.0.2.99/32").value());
    Resumed elsewhere(bench, {"--local", "192.0.2.99:81", "--", "sleep", "100"}, world.b);
    wait_until("the connection at another address", [&] {
      const auto found =
          sys::SockDiag().find({sys::Address::parse("192.0.2.99").value(), 81}, peer);
      return found && found->state == BPF_TCP_ESTABLISHED && elsewhere.program() == "sleep";
    });
  }
  Resumed shell(
      bench,
      {"--fd", "3", "--", "sh", "-c",
       "echo $LISTEN_FDS $(test $LISTEN_PID = $$ && echo mine) $REMOTE_ADDR >&3; exec cat <&3 >&3"},
      world.b);
  world.route_to(world.b);
  const Bytes hello = bytes_of("1 mine 198.51.100.1\n"), text = pattern(3'000);
  CHECK(receive_exactly(pair.client.get(), hello.size()) == hello);
  send_all(pair.client.get(), text);
  CHECK(receive_exactly(pair.client.get(), text.size()) == text);
}

TEST_CASE("freeze: the place of a connection is held for as long as it is said") {
  if (cannot_run_here()) return;
  World world;
  Bench bench;
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  Victim victim(bench, std::move(pair.server), "sleep");
  REQUIRE(bench
              .tcpmig({"freeze", "--pid", victim.pid(), "--fd", "0", "-o", bench.snapshot(),
                       "--hold", "1"})
              .code == 0);
  send_all(pair.client.get(), bytes_of("nobody is there"));
  CHECK(info_of(pair.client.get()).tcpi_state == BPF_TCP_ESTABLISHED);
  // then the kernel answers the client's retransmissions as it answers others
  wait_until("RST", [&] { return info_of(pair.client.get()).tcpi_state == BPF_TCP_CLOSE; });
  CHECK(tcpmig::manual::read_snapshot(bench.snapshot()).peer.port != 0);
}
