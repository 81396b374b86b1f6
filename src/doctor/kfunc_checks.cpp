// SPDX-License-Identifier: MIT
// The kernel resume: bpf_sk_assign_tcp_reqsk() is given segments of a client that does not exist, through a TUN.
#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <vector>

#include "agent/findings.hpp"
#include "conn/segment.hpp"
#include "conn/socket_option.hpp"
#include "doctor/checks.hpp"
#include "sys/bpf.hpp"
#include "sys/check.hpp"
#include "sys/ledger.hpp"
#include "sys/netlink.hpp"
#include "sys/tun.hpp"
#include "trial.skel.h"

namespace tcpmig::doctor {
namespace {

constexpr std::uint16_t kPort = 80;
constexpr const char* kClient = "198.51.100.1";  // RFC 5737: of documentation
constexpr const char* kServer = "192.0.0.8";     // that of sys::Tun
constexpr std::string_view kRequest = "request";
constexpr int kMptcp = 262;  // IPPROTO_MPTCP, linux/in.h

/// Sets a sysctl of this thread's network namespace for as long as it lives.
class Sysctl {
 public:
  Sysctl(std::string name, const std::string& value)
      : name_(std::move(name)), before_(sys::read_sysctl("net.ipv4." + name_)) {
    write(value);
  }
  ~Sysctl() { write(before_); }
  Sysctl(const Sysctl&) = delete;
  Sysctl& operator=(const Sysctl&) = delete;

 private:
  void write(const std::string& value) const {
    std::ofstream("/proc/sys/net/ipv4/" + name_) << value << std::flush;
  }
  std::string name_, before_;
};

sys::UniqueFd listen_there(int protocol) {
  sys::UniqueFd fd(sys::check(
      "socket", ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol)));
  conn::set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, int{1}, "setsockopt SO_REUSEADDR");
  const auto [address, length] = sys::Endpoint{*sys::Address::parse(kServer), kPort}.to_sockaddr();
  sys::check("bind", ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length));
  sys::check("listen", ::listen(fd.get(), 1));
  return fd;
}

/// An acknowledgement with a request, as the last packet of a handshake that never was.
std::vector<std::byte> request_segment() {
  tcphdr tcp{};
  tcp.doff = sizeof(tcp) / 4;
  tcp.ack = tcp.psh = 1;
  tcp.seq = htonl(1000);
  tcp.ack_seq = htonl(2000);
  tcp.window = htons(0xffff);
  std::vector<std::byte> segment(sizeof(tcp) + kRequest.size());
  std::memcpy(segment.data(), &tcp, sizeof tcp);
  std::memcpy(segment.data() + sizeof tcp, kRequest.data(), kRequest.size());
  return segment;
}

/// What a client asked for in its SYN.
struct Options {
  std::uint16_t mss = 1460;
  bool wscale = false, sack = false, timestamps = false;
};

struct Destroy {
  void operator()(trial* skeleton) const { trial__destroy(skeleton); }
};
using Program = std::unique_ptr<trial, Destroy>;

Program load() {
  const std::string missing = sys::kfunc_missing("bpf_sk_assign_tcp_reqsk");
  require(missing.empty(), missing);
  Program program(trial__open_and_load());
  if (!program) sys::check("the kernel refuses the program", -1);
  return program;
}

class Trial {
 public:
  Trial() : device_("doctor-kfunc"), program_(load()) {
    link_ = sys::link_tc(device_.ifindex(), sys::TcHook::kIngress,
                         bpf_program__fd(program_->progs.trial_resume));
    require(static_cast<bool>(link_), "no TCX link");
    sys::Netlink().add_route(
        {.destination = *sys::Prefix::parse(kClient), .gateway = {}, .oif = device_.ifindex()});
  }

  /// 0 or -errno of the kfunc.
  int give(const Options& options = {}) {
    auto& asked = *program_->bss;
    asked.mss = options.mss;
    asked.wscale_ok = options.wscale;
    asked.sack_ok = options.sack;
    asked.tstamp_ok = options.timestamps;
    static std::uint16_t port =
        1000;  // a connection of an earlier trial would be found in the listener's place
    const sys::Endpoint client{*sys::Address::parse(kClient), ++port};
    conn::give_packets(client, {*sys::Address::parse(kServer), kPort}, request_segment(),
                       [&](std::span<const std::byte> packet) { device_.inject(packet); });
    return program_->bss->answer;
  }

  /// The kernel sent one to the client within a second.
  bool resets() {
    std::array<std::byte, 1500> packet{};
    pollfd entry{.fd = device_.fd(), .events = POLLIN, .revents = 0};
    while (::poll(&entry, 1, 1000) > 0) {
      const auto length = ::read(device_.fd(), packet.data(), packet.size());
      constexpr std::size_t kIp = 20;
      if (length < static_cast<ssize_t>(kIp + sizeof(tcphdr))) continue;
      tcphdr tcp{};
      std::memcpy(&tcp, packet.data() + kIp, sizeof tcp);
      if (tcp.rst) return true;
    }
    return false;
  }

 private:
  sys::Tun device_;
  Program program_;
  sys::UniqueFd link_;
};

/// What accept() returns at once, and what can be read there; nullopt: nothing.
std::optional<std::string> accepted(int listener) {
  const sys::UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return {};
  std::array<char, 64> text{};
  const auto length = ::recv(fd.get(), text.data(), text.size(), 0);
  return std::string(text.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
}

std::string loads() {
  const agent::Finding finding = agent::kfunc(true);
  require(finding.ok, finding.detail);
  return finding.detail + ", and the program that calls it loads";
}

std::string opens() {
  Trial trial;
  const sys::UniqueFd listener = listen_there(0);
  const int answer = trial.give();
  require(answer == 0, "it answers " + std::to_string(answer));
  const auto request = accepted(listener.get());
  require(request == kRequest, request ? "the request is not there" : "accept() returns nothing");
  return "accept() of a stock listener returns the connection, with its request";
}

/// -EINVAL is what the agent refuses a transfer by; a connection that the kernel took nevertheless would not be the client's.
void must_refuse(Trial& trial, const std::string& what, const Options& options) {
  const int answer = trial.give(options);
  require(answer == -EINVAL, what + ": it answers " + std::to_string(answer));
}

std::string refuses() {
  Trial trial;
  {
    const sys::UniqueFd listener = listen_there(0);
    require(trial.give() == 0 && accepted(listener.get()), "it refuses a plain client");
    const Sysctl scaling("tcp_window_scaling", "0"), sack("tcp_sack", "0"),
        timestamps("tcp_timestamps", "0");
    must_refuse(trial, "an MSS below 536", {.mss = 535});
    must_refuse(trial, "window scaling where it is off", {.wscale = true});
    must_refuse(trial, "SACK where it is off", {.sack = true});
    must_refuse(trial, "timestamps where they are off", {.timestamps = true});
    require(!accepted(listener.get()), "it refused, and opened");
  }
  std::string text = "-EINVAL for an MSS below 536 and for options that this kernel has off";
  const int mptcp = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, kMptcp);
  if (mptcp < 0) return text;
  ::close(mptcp);
  const sys::UniqueFd listener = listen_there(kMptcp);
  must_refuse(trial, "a listener of MPTCP", {});
  return text + ", and for a listener of MPTCP";
}

std::string without_cookies() {
  Trial trial;
  const sys::UniqueFd listener = listen_there(0);
  const Sysctl cookies("tcp_syncookies", "0");
  const int answer = trial.give();
  if (answer != 0) return "without SYN cookies it answers " + std::to_string(answer);
  if (accepted(listener.get())) return "it opens without SYN cookies, too";
  require(trial.resets(), "without SYN cookies it succeeds, and the client hears nothing");
  return "without SYN cookies it succeeds, and the client is reset: so the agent looks first";
}

constexpr const char* kCost =
    "no kernel resume: servers must run under `tcpmig exec`, or have a `handoff`";
constexpr const char* kOther =
    "set agent.resume = \"repair\", and start the servers by `tcpmig exec`";

constexpr std::array kChecks{
    Check{"kfunc", kAgent, kBpf, loads, Verdict::kMissing, kCost,
          "start the servers by `tcpmig exec`, or use Linux 6.9 or newer with CONFIG_SYN_COOKIES=y "
          "and CONFIG_DEBUG_INFO_BTF=y"},
    Check{"kfunc_opens", kAgent, kNetwork | kBpf, opens, Verdict::kMissing, kCost, kOther},
    Check{"kfunc_refuses", kAgent, kNetwork | kBpf, refuses, Verdict::kMissing,
          "a connection that this server cannot carry is opened, and hangs", kOther},
    Check{"kfunc_syncookies", kAgent, kNetwork | kBpf, without_cookies, Verdict::kMissing,
          "where tcp_syncookies is set to 0, transfers of the second before the agent looks hang",
          "leave net.ipv4.tcp_syncookies at 1 (the default)"},
};

}  // namespace

std::span<const Check> kfunc_checks() { return kChecks; }

}  // namespace tcpmig::doctor
