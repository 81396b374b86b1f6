// SPDX-License-Identifier: MIT
// What `tcpmig repair-helper` refuses, and to whom; how it starts and ends.
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <stdexcept>

#include <tcpmig/freeze.hpp>
#include <tcpmig/repair_helper.hpp>
#include <tcpmig/resume.hpp>

#include "catch.hpp"
#include "conn/endpoints.hpp"
#include "conn/repair_helper.hpp"
#include "conn/repair_mode.hpp"
#include "conn/repair_request.hpp"
#include "conn/settings.hpp"
#include "conn_world.hpp"
#include "helper_bench.hpp"

using namespace conn_test;
using namespace helper_test;
using Catch::Matchers::Contains;
using tcpmig::FreezeKit;
using tcpmig::conn::RepairOperation;
using tcpmig::conn::RepairRequest;

namespace {

std::span<const std::byte> bytes_of_request(const RepairRequest& request) {
  return std::as_bytes(std::span(&request, 1));
}

int ask_for(const Helper& helper, const RepairRequest& request, int fd) {
  return ask(helper.path(), bytes_of_request(request), {fd});
}

UniqueFd open_in(const Namespace& where, int domain, int type, int protocol = 0) {
  const auto in = where.enter();
  return UniqueFd(::socket(domain, type | SOCK_CLOEXEC, protocol));
}

constexpr RepairRequest kEnter{.operation = RepairOperation::kEnter};

/// What a process without rights is told, and that its connection has not been touched.
void check_refuses_nobody(World& world, const std::string& path, const std::string& reason) {
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  Nobody asker(world.a, [&](int channel) {
    tcpmig::set_repair_helper(path);
    const FreezeKit kit({});
    const auto refused = tcpmig::try_freeze(UniqueFd(::dup(pair.server.get())), {}, kit);
    if (kit.may_repair() || refused) throw std::runtime_error("was not refused");
    send_bytes(channel, bytes_of(kit.warnings().at(0)));
  });
  const Bytes said = receive_bytes(asker.channel());
  CHECK_THAT(std::string(reinterpret_cast<const char*>(said.data()), said.size()),
             Contains(reason) && Contains(path));
  CHECK(asker.wait() == 0);
  CHECK(talk(pair.client.get(), pair.server.get(), 10'000));
}

std::map<std::string, std::string> status_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  std::map<std::string, std::string> fields;
  for (std::string name, value; file >> name && std::getline(file, value);)
    fields[name] = value.substr(std::min(value.size(), value.find_first_not_of(" \t")));
  return fields;
}

}  // namespace

TEST_CASE("repair helper: only whom it was told may ask") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  {
    const Helper roots(world.a, scratch.path("root.sock"), {});
    struct stat status{};
    REQUIRE(::stat(roots.path().c_str(), &status) == 0);
    CHECK((status.st_mode & 07777) == 0600);
    check_refuses_nobody(world, roots.path(), "Permission denied");
  }
  {
    const Helper another(world.a, scratch.path("other.sock"), {"--allow-user", "daemon"});
    check_refuses_nobody(world, another.path(), "by the repair helper");
  }
  {
    const Helper groups(world.a, scratch.path("group.sock"), {"--group", "nogroup"});
    struct stat status{};
    REQUIRE(::stat(groups.path().c_str(), &status) == 0);
    CHECK((status.st_mode & 07777) == 0660);
    CHECK(status.st_gid == kNobody);
    Nobody member(world.a, [&](int) {
      tcpmig::set_repair_helper(groups.path());
      if (!FreezeKit({}).repairs_by_helper()) throw std::runtime_error("a member was refused");
    });
    CHECK(member.wait() == 0);
  }
  check_refuses_nobody(world, scratch.path("nobody-there.sock"), "No such file or directory");
}

TEST_CASE("repair helper: sockets that are none of TCP, or of another namespace, are refused") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  const Helper helper(world.a, scratch.path("a.sock"));
  const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  CHECK(ask_for(helper, kEnter, file.get()) == ENOTSOCK);
  CHECK(ask_for(helper, kEnter, open_in(world.a, AF_INET, SOCK_DGRAM).get()) == EPROTOTYPE);
  CHECK(ask_for(helper, kEnter, open_in(world.a, AF_UNIX, SOCK_STREAM).get()) == EPROTOTYPE);
  CHECK(ask_for(helper, kEnter, open_in(world.a, AF_INET, SOCK_RAW, IPPROTO_TCP).get()) ==
        EPROTOTYPE);
  if (const UniqueFd mptcp = open_in(world.a, AF_INET, SOCK_STREAM, IPPROTO_MPTCP))
    CHECK(ask_for(helper, kEnter, mptcp.get()) == EPROTOTYPE);
  const UniqueFd elsewhere = open_in(world.b, AF_INET, SOCK_STREAM);
  CHECK(ask_for(helper, kEnter, elsewhere.get()) == EXDEV);
  CHECK(!tcpmig::conn::is_in_repair(elsewhere.get()));
  CHECK(ask_for(helper, kEnter, listen_at(world.a, Family::kIpv4).get()) == EPERM);
  const UniqueFd right = open_in(world.a, AF_INET6, SOCK_STREAM);
  CHECK(ask_for(helper, kEnter, right.get()) == 0);
  CHECK(tcpmig::conn::is_in_repair(right.get()));
}

TEST_CASE("repair helper: what is no question is refused, and the next one is answered") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  const Helper helper(world.a, scratch.path("a.sock"));
  const UniqueFd fd = open_in(world.a, AF_INET, SOCK_STREAM);
  const auto whole = bytes_of_request(kEnter);
  Bytes longer(whole.begin(), whole.end());
  longer.push_back(std::byte{1});
  const std::vector<int> one{fd.get()};
  CHECK(ask(helper.path(), {}, one) == EBADMSG);
  CHECK(ask(helper.path(), whole.first(whole.size() - 1), one) == EBADMSG);
  CHECK(ask(helper.path(), longer, one) == EBADMSG);
  CHECK(ask(helper.path(), pattern(sizeof(RepairRequest)), one) == EBADMSG);
  CHECK(ask(helper.path(), pattern(100'000), one) == EBADMSG);
  CHECK(ask(helper.path(), whole, {}) == EBADMSG);
  CHECK(ask(helper.path(), whole, {fd.get(), fd.get()}) == EBADMSG);
  CHECK(ask_for(helper, {.operation = RepairOperation{0}}, fd.get()) == EOPNOTSUPP);
  CHECK(ask_for(helper, {.operation = RepairOperation{77}}, fd.get()) == EOPNOTSUPP);
  CHECK(ask_for(helper, {.operation = RepairOperation::kTellEnd}, fd.get()) == ENOTCONN);
  CHECK(ask_for(helper, {.operation = RepairOperation::kEndTimeWait}, fd.get()) == ENOENT);
  CHECK(!tcpmig::conn::is_in_repair(fd.get()));
  CHECK(ask_for(helper, kEnter, fd.get()) == 0);
}

TEST_CASE("repair helper: no packet is made up for an address that is not of this host") {
  if (cannot_run_here()) return;
  const World world;
  const Scratch scratch;
  const Helper helper(world.a, scratch.path("helper"));
  const auto foreign = tcpmig::sys::Address::parse("2001:db8:bad::1").value();
  const auto client = tcpmig::sys::Address::parse("2001:db8:c::1").value();
  UniqueFd fd;
  {
    const auto in = world.a.enter();
    fd = tcpmig::conn::open_in_repair({foreign, 80}, false);
    tcpmig::conn::restore_local(fd.get(), {foreign, 80}, false);
    tcpmig::conn::restore_peer(fd.get(), {client, 5'000}, false);
  }
  Sniffer sniffer(world.client);
  CHECK(ask_for(helper, {.operation = RepairOperation::kTellEnd, .fin = 1}, fd.get()) ==
        EADDRNOTAVAIL);
  CHECK(sniffer.take_after_marker(world).empty());
}

TEST_CASE("repair helper: a live connection is not ended as if it were in TIME_WAIT") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  const Helper helper(world.a, scratch.path("a.sock"));
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  REQUIRE(::getpeername(pair.server.get(), reinterpret_cast<sockaddr*>(&storage), &length) == 0);
  const auto peer = tcpmig::Endpoint::from_sockaddr(storage), local = service(Family::kIpv4);
  CHECK(ask_for(helper,
                {.operation = RepairOperation::kEndTimeWait,
                 .local = local.address.v6(),
                 .peer = peer.address.v6(),
                 .local_port = local.port,
                 .peer_port = peer.port},
                pair.server.get()) == ENOENT);
  CHECK(talk(pair.client.get(), pair.server.get(), 10'000));
}

TEST_CASE("repair helper: marks, priorities and large buffers only as far as it was told") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  const UniqueFd fd = open_in(world.a, AF_INET, SOCK_STREAM);
  const auto set = [&](const Helper& helper, RepairOperation operation, std::uint32_t value) {
    return ask_for(helper, {.operation = operation, .value = value}, fd.get());
  };
  {
    const Helper strict(world.a, scratch.path("strict.sock"), {"--most-buffer", "65536"});
    CHECK(set(strict, RepairOperation::kMark, 7) == EPERM);
    CHECK(set(strict, RepairOperation::kPriority, 7) == EPERM);
    CHECK(set(strict, RepairOperation::kSendBuffer, 65'537) == EPERM);
    CHECK(set(strict, RepairOperation::kReceiveBuffer, ~0U) == EPERM);
    CHECK(set(strict, RepairOperation::kReceiveBuffer, 65'536) == 0);
  }
  const Helper loose(world.a, scratch.path("loose.sock"),
                     {"--allow", "mark", "--allow", "priority", "--allow-user", "nobody"});
  Nobody asker(world.a, [&](int) {
    tcpmig::set_repair_helper(loose.path());
    tcpmig::SocketSettings settings = tcpmig::conn::dump_settings(fd.get(), false);
    settings.mark = 7;
    settings.priority = 8;
    settings.send_buffer = settings.receive_buffer = 3'000'000;
    tcpmig::conn::restore_settings(fd.get(), false, settings);
    tcpmig::conn::restore_buffers(fd.get(), settings);
    if (tcpmig::conn::dump_settings(fd.get(), false) != settings)
      throw std::runtime_error("not all is set");
  });
  CHECK(asker.wait() == 0);
}

TEST_CASE("repair helper: more clients than it has room for wait, and keep no other user out") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  const Helper helper(world.a, scratch.path("a.sock"));
  const UniqueFd fd = open_in(world.a, AF_INET, SOCK_STREAM);
  std::vector<UniqueFd> silent;
  // one more than there is room for, where a client from before has not quite left
  wait_until("all room is taken", [&] {
    silent.push_back(connect_to(helper.path()));
    return ask_for(helper, kEnter, fd.get()) == EBUSY;
  });
  CHECK(silent.size() >= 8);
  Nobody other(world.a, [&](int) {
    tcpmig::set_repair_helper(helper.path());
    if (!FreezeKit({}).repairs_by_helper()) throw std::runtime_error("another user was kept out");
  });
  CHECK(other.wait() == 0);
  // each has a second to say something
  wait_until("room again", [&] { return ask_for(helper, kEnter, fd.get()) == 0; });
}

TEST_CASE("repair helper: who may not ask cannot keep it busy by what he sends") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  const Helper helper(world.a, scratch.path("helper"), {"--allow-user", "daemon"});
  Pair lingering = connect_pair(world, world.a, Family::kIpv4);  // its client does not read
  const Bytes chunk = pattern(65'536);
  while (::send(lingering.server.get(), chunk.data(), chunk.size(), MSG_DONTWAIT) > 0) {
  }
  const linger minute{1, 60};
  REQUIRE(::setsockopt(lingering.server.get(), SOL_SOCKET, SO_LINGER, &minute, sizeof minute) == 0);
  REQUIRE(::kill(helper.pid(), SIGSTOP) == 0);  // it shall find the descriptor in its queue
  Nobody asker(world.a, [&](int channel) {
    const UniqueFd helpers = connect_to(helper.path());
    tcpmig::send_descriptor(helpers.get(), lingering.server.get(), "?");
    lingering.server.reset();
    say(channel, 's');
    hear(channel);
  });
  lingering.server.reset();
  CHECK(hear(asker.channel()) == 's');
  REQUIRE(::kill(helper.pid(), SIGCONT) == 0);
  const auto begin = std::chrono::steady_clock::now();
  const Pair pair = connect_pair(world, world.a, Family::kIpv4);
  CHECK(ask_for(helper, kEnter, pair.server.get()) == 0);
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30));
  say(asker.channel(), 'e');
  CHECK(asker.wait() == 0);
}

TEST_CASE("repair helper: keeps one capability, starts once, and leaves nothing when told to end") {
  if (cannot_run_here()) return;
  World world;
  const Scratch scratch;
  const std::string path = scratch.path("a.sock");
  Helper helper(world.a, path);
  auto status = status_of(helper.pid());
  for (const char* set : {"CapPrm:", "CapEff:", "CapBnd:"})
    CHECK(std::stoull(status[set], nullptr, 16) == 1ULL << CAP_NET_ADMIN);
  for (const char* set : {"CapInh:", "CapAmb:"}) CHECK(std::stoull(status[set], nullptr, 16) == 0);
  CHECK(status["NoNewPrivs:"] == "1");

  const Ended second = run_helper(world.a, {"--socket", path});
  CHECK(second.code == 4);
  CHECK_THAT(second.said, Contains("a repair helper listens at " + path + " already"));

  helper.end_by(SIGKILL);
  CHECK(std::filesystem::is_socket(path));
  helper.start_again();  // over what the killed one has left
  const UniqueFd silent = connect_to(path);
  const int ended = helper.end_by(SIGTERM);
  CHECK((WIFEXITED(ended) && WEXITSTATUS(ended) == 0));
  CHECK(!std::filesystem::exists(path));
  CHECK(!std::filesystem::exists(path + ".lock"));

  std::ofstream(scratch.path("file")) << "of somebody";
  const Ended occupied = run_helper(world.a, {"--socket", scratch.path("file")});
  CHECK(occupied.code == 2);
  CHECK_THAT(occupied.said, Contains("is there and is no socket"));
  CHECK(std::filesystem::file_size(scratch.path("file")) == 11);
  const Ended unknown = run_helper(world.a, {"--socket", path, "--allow-user", "no such user"});
  CHECK(unknown.code == 2);
  CHECK_THAT(unknown.said, Contains("no user \"no such user\""));
}
