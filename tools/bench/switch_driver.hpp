// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <string>

#include "bpf/switch_rig.hpp"
#include "driver.h"

struct bpf_object;

/// Programs of the switch, and what they are compared with, under BPF_PROG_TEST_RUN with a fresh packet at each repeat (driver.bpf.c).
namespace tcpmig::bench {

/// A loaded BPF object.
class Object {
 public:
  Object(const std::string& name, const void* bytes, std::size_t size);
  [[nodiscard]] int program(const std::string& name) const;
  [[nodiscard]] int map(const std::string& name) const;

 private:
  std::unique_ptr<bpf_object, void (*)(bpf_object*)> object_;
};

/// Which packets.
struct Shot {
  rig::Bytes frame;  ///< as long as the packet is; its headers are written again at each repeat
  std::string interface;
  abi::driver_plan plan;
};

class Driver {
 public:
  explicit Driver(rig::Backend backend);
  /// Nanoseconds for one packet, what the driver costs included: the mean of `repeat`. Throws when the last one was not sent on.
  double run(int target, const Shot& shot, std::uint32_t repeat);
  /// The same target-less: what the driver costs.
  double floor(const Shot& shot, std::uint32_t repeat);
  [[nodiscard]] int reference(const std::string& what) const;  ///< forward, dnat
  [[nodiscard]] int reference_table() const { return reference_.map("table"); }

 private:
  rig::Backend backend_;
  std::string prefix_;
  Object driver_, reference_;
};

/// A TCP segment of client n of many: towards the VIP, or from the server towards the client.
Shot inward(const rig::Family& f, std::uint32_t first, std::uint32_t clients,
            std::uint8_t flags = packets::kAck);
Shot outward(const rig::Family& f, std::uint32_t first, std::uint32_t clients);
/// The first transfer of client after client, beginning with `first`. Its numbers rise over all shots of this process.
Shot commits(const rig::Family& f, std::uint32_t first);
abi::flow_key key_of_client(const rig::Family& f, std::uint32_t client);

/// The clients' network: 10.128.0.0/9, behind the gateway of the topology.
inline constexpr std::uint32_t kClientNetwork = 10U << 24 | 128U << 16;

}  // namespace tcpmig::bench
