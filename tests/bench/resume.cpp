// SPDX-License-Identifier: MIT
// Freeze, encode, decode and repair resume of an idle connection, by the library and by the system calls that it cannot do without,
// in turns; the last lines say the ratio. CPU time, with what the kernel does for the calls. Where one call dumps the library knows the peer's
// clock, which only a packet can tell the new socket: that packet is on both sides of this comparison.
#define CATCH_CONFIG_RUNNER  // the files that all benches share have checks; here are no test cases
#include "catch.hpp"

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <tcpmig/codec.hpp>
#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "bench/tcp_pair.hpp"
#include "conn/raw_socket.hpp"
#include "conn/segment.hpp"
#include "sys/check.hpp"
#include "sys/netlink.hpp"

namespace {

using namespace tcpmig;
using bench::tcp_socket;
using bench::TcpPair;

void by_library(benchmark::State& state, bool by_program) {
  const FreezeKit kit({.use_dump_program = by_program, .cgroup_name = "tcpmig-bench"});
  if (by_program && !kit.has_dump_program()) return state.SkipWithError("no dump program");
  TcpPair pair;
  for (auto _ : state) {
    Frozen frozen = freeze(std::move(pair.server), {}, kit, Scope::kWhole);
    const auto bytes = encode(frozen.snapshot());
    frozen.commit();
    pair.server = repair_resume(decode(bytes).value());
  }
}
void library_plain(benchmark::State& state) { by_library(state, false); }
void library_one_call(benchmark::State& state) { by_library(state, true); }

// ---- the same by hand: no errors are looked at but one, nothing is kept, nothing is checked ----

template <typename T>
T get(int fd, int level, int name) {
  T value{};
  socklen_t length = sizeof value;
  ::getsockopt(fd, level, name, &value, &length);
  return value;
}
template <typename T>
void set(int fd, int level, int name, T value) {
  ::setsockopt(fd, level, name, &value, sizeof value);
}

/// What is read of the old socket and set on the new one, in this order.
struct Option {
  int level, name;
};
constexpr std::array kOptions{
    Option{IPPROTO_IP, IP_TOS},         Option{IPPROTO_IP, IP_TTL},
    Option{SOL_SOCKET, SO_PRIORITY},    Option{SOL_SOCKET, SO_MARK},
    Option{IPPROTO_TCP, TCP_KEEPIDLE},  Option{IPPROTO_TCP, TCP_KEEPINTVL},
    Option{IPPROTO_TCP, TCP_KEEPCNT},   Option{IPPROTO_TCP, TCP_USER_TIMEOUT},
    Option{SOL_SOCKET, SO_KEEPALIVE},   Option{IPPROTO_TCP, TCP_NODELAY},
    Option{IPPROTO_TCP, TCP_CORK},      Option{IPPROTO_TCP, TCP_NOTSENT_LOWAT},
    Option{SOL_SOCKET, SO_SNDBUFFORCE}, Option{SOL_SOCKET, SO_RCVBUFFORCE},
    Option{SOL_SOCKET, SO_BUF_LOCK}};

constexpr int readable(int name) {
  return name == SO_SNDBUFFORCE ? SO_SNDBUF : name == SO_RCVBUFFORCE ? SO_RCVBUF : name;
}

struct State {
  std::array<int, kOptions.size()> options;
  sockaddr_in local, peer;
  ::tcp_info info;
  tcp_repair_window window;
  std::uint32_t timestamp, read, written;
  int mss;
  linger end;
  std::array<char, 16> congestion;
};

std::uint32_t queue_sequence(int fd, int queue) {
  set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
  return get<std::uint32_t>(fd, IPPROTO_TCP, TCP_QUEUE_SEQ);
}

/// Locked, so that nothing moves; refused what no snapshot carries (MPTCP, kTLS, urgent data, a gap, zero copy, peek offset); read; closed in repair.
State take(UniqueFd old, int lock) {
  const int fd = old.get();
  State state{};
  set(fd, SOL_SOCKET, SO_ATTACH_BPF, lock);
  get<std::array<char, 16>>(fd, IPPROTO_TCP, TCP_ULP);
  get<int>(fd, SOL_SOCKET, SO_PROTOCOL);
  get<int>(fd, SOL_SOCKET, SO_PEEK_OFF);
  get<std::array<std::uint32_t, SK_MEMINFO_VARS>>(fd, SOL_SOCKET, SO_MEMINFO);
  char urgent = 0;
  ::recv(fd, &urgent, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT);
  socklen_t length = sizeof state.local;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&state.local), &length);
  ::getpeername(fd, reinterpret_cast<sockaddr*>(&state.peer), &length);
  get<int>(fd, SOL_SOCKET, SO_DOMAIN);
  get<int>(fd, SOL_SOCKET, SO_REUSEADDR);
  set(fd, IPPROTO_TCP, TCP_REPAIR, int{TCP_REPAIR_ON});
  state.window = get<tcp_repair_window>(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW);
  tcp_repair_window shut = state.window;
  shut.snd_wnd = 0;
  set(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, shut);
  state.timestamp = get<std::uint32_t>(fd, IPPROTO_TCP, TCP_TIMESTAMP);
  set(fd, IPPROTO_TCP, TCP_TIMESTAMP, state.timestamp - (1U << 30));
  int queued = 0;
  for (const unsigned long request : {SIOCINQ, SIOCOUTQ, SIOCOUTQNSD})
    ::ioctl(fd, request, &queued);
  state.info = get<::tcp_info>(fd, IPPROTO_TCP, TCP_INFO);
  state.read = queue_sequence(fd, TCP_RECV_QUEUE);
  state.written = queue_sequence(fd, TCP_SEND_QUEUE);
  set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, int{TCP_NO_QUEUE});
  state.mss = get<int>(fd, IPPROTO_TCP, TCP_MAXSEG);
  ::fcntl(fd, F_GETFL);
  state.end = get<linger>(fd, SOL_SOCKET, SO_LINGER);
  state.congestion = get<std::array<char, 16>>(fd, IPPROTO_TCP, TCP_CONGESTION);
  for (std::size_t i = 0; i < kOptions.size(); ++i)
    state.options[i] = get<int>(fd, kOptions[i].level, readable(kOptions[i].name));
  old.reset();
  return state;
}

/// The peer's bare acknowledgement, with its clock.
void tell_clock(const State& state) {
  const auto endpoint = [](const sockaddr_in& address) {
    return Endpoint{sys::Address::from_v4(address.sin_addr), ntohs(address.sin_port)};
  };
  Snapshot known;
  known.rcv_nxt.value = state.read;
  known.snd_una.value = state.written;
  known.snd_wnd = state.window.snd_wnd;
  known.timestamps =
      Timestamps{.tsval_now = state.timestamp, .ts_recent = state.timestamp, .microseconds = false};
  const UniqueFd raw(sys::check("socket", ::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW)));
  conn::give_packets(endpoint(state.peer), endpoint(state.local), conn::made_up_clock(known),
                     [&](std::span<const std::byte> packet) {
                       ::sendto(raw.get(), packet.data(), packet.size(), 0,
                                reinterpret_cast<const sockaddr*>(&state.local),
                                sizeof state.local);
                     });
}

UniqueFd go_on(const State& state, bool with_clock) {
  UniqueFd fresh = tcp_socket();
  const int fd = fresh.get();
  set(fd, SOL_SOCKET, SO_REUSEADDR, int{1});
  set(fd, IPPROTO_IP, IP_FREEBIND, int{1});
  set(fd, IPPROTO_TCP, TCP_REPAIR, int{TCP_REPAIR_ON});
  ::bind(fd, reinterpret_cast<const sockaddr*>(&state.local), sizeof state.local);
  for (const auto& [queue, sequence] :
       {std::pair{TCP_RECV_QUEUE, state.read}, std::pair{TCP_SEND_QUEUE, state.written}}) {
    set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, int{queue});
    set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, sequence);
  }
  set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, int{TCP_NO_QUEUE});
  set(fd, IPPROTO_TCP, TCP_MAXSEG, 32'767);
  sys::check("connect",
             ::connect(fd, reinterpret_cast<const sockaddr*>(&state.peer), sizeof state.peer));
  const std::array<tcp_repair_opt, 4> options{
      {{2, static_cast<std::uint32_t>(state.mss)},
       {3, state.info.tcpi_snd_wscale | static_cast<std::uint32_t>(state.info.tcpi_rcv_wscale)
                                            << 16},
       {4, 0},
       {8, 0}}};
  set(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options);
  set(fd, IPPROTO_TCP, TCP_TIMESTAMP, state.timestamp);
  set(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, state.window);
  ::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, state.congestion.data(),
               static_cast<socklen_t>(std::string(state.congestion.data()).size()));
  set(fd, SOL_SOCKET, SO_LINGER, state.end);
  ::fcntl(fd, F_GETFL);
  for (std::size_t i = 0; i < kOptions.size(); ++i)
    set(fd, kOptions[i].level, kOptions[i].name,
        readable(kOptions[i].name) == kOptions[i].name ? state.options[i] : state.options[i] / 2);
  if (with_clock) tell_clock(state);
  set(fd, IPPROTO_TCP, TCP_REPAIR, int{TCP_REPAIR_OFF_NO_WP});
  set(fd, SOL_SOCKET, SO_REUSEADDR, int{1});
  return fresh;
}

void by_hand(benchmark::State& state, bool with_clock) {
  const FreezeKit kit({.use_dump_program = false, .cgroup_name = {}});
  TcpPair pair;
  for (auto _ : state)
    pair.server = go_on(take(std::move(pair.server), kit.lock_program_fd()), with_clock);
}
void bare_system_calls(benchmark::State& state) { by_hand(state, false); }
void bare_with_clock(benchmark::State& state) { by_hand(state, true); }

BENCHMARK(library_plain);
BENCHMARK(library_one_call);
BENCHMARK(bare_system_calls);
BENCHMARK(bare_with_clock);

/// Keeps the medians.
class Medians : public benchmark::ConsoleReporter {
 public:
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs)
      if (run.aggregate_name == "median") of[run.run_name.function_name] = run.GetAdjustedCPUTime();
    ConsoleReporter::ReportRuns(runs);
  }
  std::map<std::string, double> of;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    sys::check("unshare", ::unshare(CLONE_NEWNET));
    sys::Netlink().set_link("lo", true);
    std::vector<char*> words(argv, argv + argc);
    std::array<std::string, 3> usual{"--benchmark_repetitions=15",
                                     "--benchmark_enable_random_interleaving=true",
                                     "--benchmark_report_aggregates_only=true"};
    for (std::string& word : usual) words.insert(words.begin() + 1, word.data());
    int count = static_cast<int>(words.size());
    benchmark::Initialize(&count, words.data());
    Medians medians;
    benchmark::RunSpecifiedBenchmarks(&medians);
    for (const auto& [name, bare] : {std::pair{"library_plain", "bare_system_calls"},
                                     std::pair{"library_one_call", "bare_with_clock"}})
      std::printf("%-17s %.2f x %s\n", name, medians.of[name] / medians.of[bare], bare);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "resume: %s\n", error.what());
    return 1;
  }
}
