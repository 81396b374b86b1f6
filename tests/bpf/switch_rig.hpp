// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#define CATCH_CONFIG_ENABLE_PAIR_STRINGMAKER  // Counts in what a failing test says
#include "bpf/packet.hpp"
#include "catch.hpp"
#include "shared/switch_maps.h"
#include "shared/wire.h"
#include "sys/bpf.hpp"
#include "sys/netns.hpp"

struct bpf_object;

/// The switch's programs under BPF_PROG_TEST_RUN, in a network namespace with interfaces, routes
/// and neighbours, so that bpf_fib_lookup finds what it would find on a real switch:
///
///        client .2 ---+                                   +--- node 1 dispatcher  .2
///                     +-- clients0 [.1 switch .1] nodes0 -+--- node 2 server      .3
///   far -- gateway ---+    10.1.0/24       | 10.2.0/24    +--- node 3 server      .4  its MAC is
///   not known
///                                          |              +--- node 5 dispatcher  .6
///                                          |              +--- node 7 server      .8  its block
///                                          has an MTU of 1300
///                                       nodes1 10.3.0/24 ----- node 4 server      .5
///   node 6: a server to which there is no route
namespace rig {

namespace abi = tcpmig::abi;
using packets::Address;
using packets::Bytes;
using packets::Mac;
using packets::Packet;
using packets::View;

enum class Backend { kTc, kXdp };
enum class Action { kKernel, kDrop, kRedirect };
using Counts = std::map<std::string, std::uint64_t>;

inline constexpr std::uint16_t kService = 9, kPort = 80, kControlPort = 7420;
inline constexpr std::uint16_t kNoVipService = 10;
inline constexpr std::uint16_t kTargetPort = 8080, kClientPort = 40000;

/// Runs iproute2 in this thread's namespace: the commands of one batch.
void iproute(const std::string& commands);
void write_file(const std::string& path, const std::string& text);

/// File descriptor of the namespace; made at the first call.
int topology();

/// The world of one address family.
struct Family {
  int version = 4;
  Address client, far, far_unresolved, vip, elsewhere;
  Address own_clients, own_nodes, own_nodes1;
  [[nodiscard]] Address node(int id) const;
  [[nodiscard]] Address vpa(int id, int service = kService) const;
};
const Family& family(int version);

Mac mac_of_interface(const std::string& name);
Mac mac_of_client();
Mac mac_of_gateway();
Mac mac_of_node(int id);

/// What became of a packet.
struct Result {
  Action action{};
  Bytes frame;
  Counts counted;                   ///< what was counted, by name
  [[nodiscard]] View view() const;  ///< fails the test when a checksum is wrong
};

class Rig {
 public:
  /// Loaded once per process. Throws where the machine cannot do it.
  static Rig& get(Backend backend);
  /// One of its own, with default tables, whose flow table holds `flows` entries.
  static std::unique_ptr<Rig> make(Backend backend, std::uint32_t flows);

  /// As a fresh start: no flows, default tables.
  void reset();

  [[nodiscard]] Backend backend() const { return backend_; }
  [[nodiscard]] int map(const std::string& name) const;

  /// "clients", "nodes", "forget" or "reap"
  [[nodiscard]] int program(const std::string& role) const;
  /// To the three interfaces of this namespace, where there is none yet.
  void attach_xdp() const;

  Result run(const std::string& role, const std::string& interface, const Bytes& frame,
             std::uint32_t gso_size = 0);
  /// Without counting: for threads that run at the same time.
  Result shoot(const std::string& role, const std::string& interface, const Bytes& frame,
               std::uint32_t gso_size = 0) const;
  Result from_client(const Packet& packet, std::uint32_t gso_size = 0);
  Result from_node(const Packet& packet, std::uint32_t gso_size = 0);
  Result from_nodes1(const Packet& packet);

  std::optional<abi::flow_value> flow(const Family& f, std::uint16_t client_port = kClientPort);
  void set_flow(const Family& f, const abi::flow_value& value,
                std::uint16_t client_port = kClientPort);
  /// A live entry.
  static abi::flow_value owned(unsigned owner, unsigned previous, unsigned generation, bool spoke);
  std::optional<abi::affinity_value> bound(const Family& f,
                                           std::uint16_t client_port = kClientPort);
  void bind(const Family& f, std::uint16_t dispatcher, std::uint16_t client_port = kClientPort);
  void set_settings(const std::function<void(abi::switch_settings&)>& change);
  void set_node(unsigned id, const std::function<void(abi::node_entry&)>& change);
  abi::traffic traffic_of_node(std::uint32_t id) { return traffic("node_traffic", id); }
  abi::traffic traffic_of_service(std::uint32_t id) { return traffic("service_traffic", id); }
  [[nodiscard]] Counts counters() const;  ///< since the programs were loaded
  bool forget(const Family& f, std::uint64_t dead_ns);
  /// Runs it and gives back what the program has made of it.
  abi::reap_request reap(abi::reap_request request);
  /// What has been put into the ring since the last call.
  std::vector<abi::revocation> revocations();

  ~Rig();
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

 private:
  Rig(Backend backend, std::uint32_t flows, std::uint32_t affinity);
  void fill_tables();
  abi::traffic traffic(const std::string& map_name, std::uint32_t index);
  template <typename Key>
  void clear(const std::string& map_name);

  Backend backend_;
  bpf_object* object_ = nullptr;
};

/// Puts the test into the namespace, and chooses backend and family: use with GENERATE.
struct Case {
  Backend backend;
  int version;
};
Case any_case();
/// False, and says so, where BPF programs cannot be run.
bool can_run();

/// One test case over tc and XDP, IPv4 and IPv6: `s` the switch, `f` the family.
class World {
 private:
  tcpmig::sys::EnterNetns enter_;

 public:
  explicit World(Case c);
  Rig& s;
  const Family& f;

  Packet tcp_in(packets::Tcp tcp, std::uint8_t ttl = 64) const;  ///< client -> VIP
  Packet tcp_out(int node, packets::Tcp tcp,
                 std::uint8_t ttl = 64) const;  ///< VPA of node -> client
};

abi::flow_key key_of(const Family& f, std::uint16_t client_port = kClientPort);
std::uint64_t now_ns();

/// What a node shares with the switch.
abi::siphash_key key_of_sender(unsigned node, unsigned slot);
/// Tags a header for the switch, with the key of its sender.
void tag(abi::wire_header& header);
/// A COMMIT as a dispatcher sends it; every one has a new message number.
abi::wire_header transfer(const Family& f, abi::wire_type type, unsigned sender, unsigned target,
                          unsigned generation);
Packet control(const Family& f, abi::wire_header header, const Bytes& payload = {});
abi::wire_header header_of(const View& view);
/// True if the switch's tag in it is right for `node`.
bool tagged_for(const abi::wire_header& header, unsigned node);

}  // namespace rig

/// Begins a test: SKIPPED where it cannot run, else `w`.
#define SWITCH_WORLD(w)          \
  if (!rig::can_run()) return;   \
  rig::World w(rig::any_case()); \
  INFO((w.s.backend() == rig::Backend::kTc ? "tc" : "XDP") << ", IPv" << w.f.version)
