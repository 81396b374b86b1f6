// SPDX-License-Identifier: MIT
// TCP_REPAIR and what stands on it, each fact by a connection of its own.
#include <fcntl.h>
#include <linux/bpf.h>  // the TCP states
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>

#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "conn/placeholder.hpp"
#include "conn/queues.hpp"
#include "conn/repair_mode.hpp"
#include "conn/socket_lock.hpp"
#include "conn/socket_option.hpp"
#include "conn/timestamps.hpp"
#include "conn/window.hpp"
#include "doctor/checks.hpp"
#include "doctor/socket_pair.hpp"
#include "sys/check.hpp"

namespace tcpmig::doctor {
namespace {

std::string tcp_repair() {
  const SocketPair pair;
  conn::enter_repair(pair.server.get());
  conn::leave_repair(pair.server.get(), false);
  require(talk(pair.client.get(), pair.server.get()), "the connection does not go on afterwards");
  return "TCP_REPAIR, on and off again";
}

std::string repair_window() {
  const SocketPair pair;
  conn::enter_repair(pair.server.get());
  const RepairWindow window = conn::dump_window(pair.server.get());
  Snapshot snapshot;
  snapshot.window = window;
  conn::restore_window(pair.server.get(), snapshot);
  require(conn::dump_window(pair.server.get()) == window, "it does not read as it was written");
  return "TCP_REPAIR_WINDOW";
}

/// Either answer is good: the lock is there for the first.
std::string repair_and_data() {
  const SocketPair pair;
  conn::enter_repair(pair.server.get());
  send_text(pair.client.get(), "data");
  conn::leave_repair(pair.server.get(), false);
  return bytes_waiting(pair.server.get()) > 0
             ? "a socket in repair takes data in: the lock keeps it out"
             : "a socket in repair takes no data in";
}

/// Either answer is good: options are restored first.
std::string repair_options() {
  const SocketPair pair;
  const int fd = pair.server.get();
  tcp_repair_opt sack{4, 0};  // SACK permitted (RFC 2018)
  const auto set = [&] {
    return ::setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, &sack, sizeof(sack));
  };
  conn::enter_repair(fd);
  sys::check("setsockopt TCP_REPAIR_OPTIONS", set());
  conn::leave_repair(fd, false);
  send_text(fd, "data");
  conn::enter_repair(fd);
  return set() < 0 ? "TCP_REPAIR_OPTIONS, refused once data was sent: they are restored first"
                   : "TCP_REPAIR_OPTIONS, also after data was sent";
}

/// How far the clock of a connection is when it was set back a moment ago.
std::uint32_t continued(bool in_microseconds) {
  const SocketPair pair;
  Timestamps wanted;
  wanted.tsval_now = 1'000'000'000;
  wanted.microseconds = in_microseconds;
  conn::enter_repair(pair.server.get());
  conn::restore_timestamps(pair.server.get(), wanted);
  return conn::dump_tsval(pair.server.get()) - wanted.tsval_now;
}

std::string timestamps() {
  const std::uint32_t ahead = continued(false);
  require(ahead < 10'000, "the clock does not go on from where it is set");
  return "TCP_TIMESTAMP: a clock goes on from where it was";
}

std::string microseconds() {
  const std::uint32_t ahead = continued(true);
  require(ahead < 10'000'000, "the clock does not go on from where it is set");
  return "a clock that ticks in microseconds, too";
}

std::string silent_close() {
  SocketPair pair;
  conn::enter_repair(pair.server.get());
  pair.server.reset();
  require(state_of(pair.client.get()) == BPF_TCP_ESTABLISHED, "close() in repair sends a packet");
  return "close() in repair sends nothing";
}

void disconnect(int fd) {
  conn::enter_repair(fd);
  conn::hold_sending(fd);
  conn::disconnect_silently(fd);
  conn::release(fd, 0);
}

std::string silent_disconnect() {
  const SocketPair pair;
  disconnect(pair.server.get());
  require(state_of(pair.client.get()) == BPF_TCP_ESTABLISHED, "it sends a packet");
  char byte = 0;
  const auto first = ::recv(pair.server.get(), &byte, 1, MSG_DONTWAIT);
  require(first < 0 && errno == ECONNABORTED, "its owner does not see a connection that broke");
  require(::recv(pair.server.get(), &byte, 1, MSG_DONTWAIT) == 0, "its owner sees no end");
  return "a connection ends for its process, and not for its peer";
}

std::string hold() {
  SocketPair pair;
  const conn::Endpoints ends = conn::dump_endpoints(pair.server.get());
  conn::step_aside(pair.server.get(), ends.peer);
  const sys::UniqueFd placeholder = conn::open_placeholder(ends, false);
  send_text(pair.client.get(), "data");
  require(bytes_waiting(pair.server.get()) == 0, "the younger of two sockets is not found first");
  disconnect(pair.server.get());
  send_text(pair.client.get(), "data");
  require(state_of(pair.client.get()) == BPF_TCP_ESTABLISHED, "the kernel answers by RST");
  return "a socket takes the place of another one, and says nothing";
}

/// Freezes the server's end, with something in both queues, and goes on with it here.
sys::UniqueFd moved(SocketPair& pair, bool peer_closed) {
  send_text(pair.client.get(), "in");
  if (peer_closed) sys::check("shutdown", ::shutdown(pair.client.get(), SHUT_WR));
  const sys::UniqueFd other(sys::check("dup", ::fcntl(pair.server.get(), F_DUPFD_CLOEXEC, 3)));
  const FreezeKit kit({.use_dump_program = false, .cgroup_name = "", .keep_window_small = false});
  Frozen frozen = freeze(std::move(pair.server), {}, kit, Scope::kWhole);
  const Snapshot snapshot = frozen.snapshot();
  conn::disconnect_silently(other.get());
  frozen.commit();
  return repair_resume(snapshot);
}

std::string repair_resume_works() {
  SocketPair pair;
  const sys::UniqueFd resumed = moved(pair, false);
  std::array<char, 8> in{};
  require(::recv(resumed.get(), in.data(), in.size(), 0) == 2, "what had come is not there");
  require(talk(pair.client.get(), resumed.get()), "the connection does not go on");
  return "a connection was frozen, ended, and went on";
}

std::string peer_has_closed() {
  SocketPair pair;
  const sys::UniqueFd resumed = moved(pair, true);
  std::array<char, 8> in{};
  require(::recv(resumed.get(), in.data(), in.size(), 0) == 2 &&
              ::recv(resumed.get(), in.data(), in.size(), 0) == 0,
          "the end of the peer's stream does not come");
  return "a raw socket brings in the end of a stream that has closed";
}

constexpr unsigned kMovers = kLibrary | kDispatcher;
constexpr const char* kKernel = "use a stock kernel, Linux 5.8 or newer";

constexpr std::array kChecks{
    Check{"tcp_repair", kMovers, kNetwork, tcp_repair, Verdict::kMissing,
          "no connection is frozen or resumed by TCP_REPAIR", kKernel},
    Check{"repair_and_data", kMovers, kNetwork, repair_and_data, Verdict::kMissing,
          "no connection can be frozen", kKernel},
    Check{"repair_window", kMovers, kNetwork, repair_window, Verdict::kMissing,
          "no connection is frozen or resumed by TCP_REPAIR", "use Linux 4.8 or newer"},
    Check{"repair_options", kLibrary, kNetwork, repair_options, Verdict::kMissing,
          "no connection is resumed by TCP_REPAIR", kKernel},
    Check{"timestamps", kMovers, kNetwork, timestamps, Verdict::kMissing,
          "connections that use timestamps are not resumed", kKernel},
    Check{"timestamps_us", kLibrary, kNetwork, microseconds, Verdict::kWorksAround,
          "a connection whose timestamps tick in microseconds (`ip route .. features tcp_usec_ts`) "
          "is refused here",
          "use Linux 6.7 or newer"},
    Check{"silent_close", kMovers, kNetwork, silent_close, Verdict::kMissing,
          "the peer of a moved connection is told that it has ended", kKernel},
    Check{"silent_disconnect", kLibrary, kNetwork, silent_disconnect, Verdict::kMissing,
          "`tcpmig freeze` does not work", kKernel},
    Check{"hold", kLibrary, kNetwork, hold, Verdict::kWorksAround,
          "`tcpmig freeze` needs --hold 0, and packets directed elsewhere beforehand", kKernel},
    Check{"repair_resume", kLibrary, kNetwork, repair_resume_works, Verdict::kMissing,
          "no connection is resumed by TCP_REPAIR", kKernel},
    Check{"raw_socket", kLibrary, kNetwork, peer_has_closed, Verdict::kWorksAround,
          "a connection whose peer has closed is resumed only by who gives repair_resume() a TUN",
          "grant CAP_NET_RAW"},
};

}  // namespace

std::span<const Check> socket_checks() { return kChecks; }

}  // namespace tcpmig::doctor
