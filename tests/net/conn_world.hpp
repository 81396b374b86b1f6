// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <linux/tcp.h>

#include <tcpmig/freeze.hpp>

#include "sys/address.hpp"
#include "sys/netns.hpp"
#include "sys/tun.hpp"
#include "sys/unique_fd.hpp"

// A client, and two servers that have the same service address. The client's route says which of
// them it talks to:
//
//                        ca ------ a0  server A   192.0.2.10, 2001:db8::10 on lo
//   client  198.51.100.1
//      lo   2001:db8:c::1
//                        cb ------ b0  server B   192.0.2.10, 2001:db8::10 on lo
//
// All in network namespaces of this test; one process is all three, because a socket stays in the
// namespace it was made in.
namespace conn_test {

/// Prints why this machine cannot run the test, and returns true.
bool cannot_run_here();
/// Else prints why the dump program cannot be used.
bool has_cgroup2();
/// A cgroup name of this test's own.
std::string cgroup_name();
/// A kit that dumps by one of the two recipes, and leaves windows as they are.
tcpmig::FreezeKit::Options kit_options(bool by_program = true);

class Namespace {
 public:
  explicit Namespace(const std::string& suffix);
  ~Namespace();
  Namespace(const Namespace&) = delete;
  Namespace& operator=(const Namespace&) = delete;
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] tcpmig::sys::EnterNetns enter() const { return tcpmig::sys::EnterNetns(fd_.get()); }

 private:
  std::string name_;
  tcpmig::sys::UniqueFd fd_;
};

enum class Family { kIpv4, kIpv6, kMapped };

/// Which options the client offers.
struct Offer {
  bool timestamps = true;
  bool sack = true;
  bool window_scale = true;
};

class World {
 public:
  World();
  /// Of connections that are made from now on.
  void set_offer(const Offer& offer) const;
  /// Packets of the client to the service go to this server from now on.
  void route_to(const Namespace& server);

  Namespace client;
  Namespace a;
  Namespace b;
};

tcpmig::sys::Endpoint service(Family family);

/// The two ends of one connection from the client to the service at `server`.
struct Pair {
  tcpmig::sys::UniqueFd client;
  tcpmig::sys::UniqueFd server;
};
struct ClientSocket {
  int protocol = 0;  ///< IPPROTO_MPTCP, ..
  int mss = 0;       ///< TCP_MAXSEG; 0 = the link's
};
/// kMapped: the listener is one IPv6 socket for both families, the client comes by IPv4. None where
/// there is no such protocol.
tcpmig::sys::UniqueFd listen_at(const Namespace& server, Family family, int protocol = 0);
Pair connect_pair(World& world, const Namespace& server, Family family);
Pair connect_pair(World& world, int listener, Family family, const ClientSocket& how = {});

/// The same idle connection with other sequence numbers: those that the client, and the server, send next.
Pair with_sequence(World& world, const Namespace& server, Pair pair, std::uint32_t client_next,
                   std::uint32_t server_next);

using Bytes = std::vector<std::byte>;
Bytes pattern(std::size_t size, unsigned seed = 1);
Bytes bytes_of(std::string_view text);
void send_all(int fd, std::span<const std::byte> bytes);
/// Exactly `count` bytes; throws after five seconds without any, or at the end of the stream.
Bytes receive_exactly(int fd, std::size_t count);
/// Sends and receives alternately until everything has come; what came.
Bytes carry(int from, int to, std::span<const std::byte> bytes);
/// carry() of a pattern, both ways; whether everything came as it went.
bool talk(int one, int other, std::size_t size);
std::size_t bytes_waiting(int fd);
::tcp_info info_of(int fd);
/// Polls until true; throws std::runtime_error("timeout: " + what) after five seconds.
void wait_until(const std::string& what, const std::function<bool()>& condition);

/// Runs a test whose outcome depends on the client's retransmission timer (200 ms) until one run
/// was quicker than that, on a machine that may be busy; at most ten times. The test makes its
/// CHECKs only where in_time() is true.
class Race {
 public:
  /// For `while (race.again())`.
  bool again();
  void start() { start_ = std::chrono::steady_clock::now(); }
  /// Asked once a run.
  bool in_time();

 private:
  std::chrono::steady_clock::time_point start_;
  int runs_ = 0;
  bool done_ = false;
};

/// A TUN device in a server's namespace, to inject packets into.
tcpmig::sys::Tun tun_in(const Namespace& server);

/// What passes an AF_PACKET socket in a namespace.
class Sniffer {
 public:
  explicit Sniffer(const Namespace& where);
  struct Packet {
    bool outgoing = false;
    std::uint8_t tcp_flags = 0;
    std::size_t tcp_data = 0;
  };
  /// All TCP packets so far.
  std::vector<Packet> take();
  /// Waits until everything that was sent before on the client's links has been seen, by sending
  /// one datagram after it.
  std::vector<Packet> take_after_marker(const World& world);

 private:
  tcpmig::sys::UniqueFd fd_;
};

}  // namespace conn_test
