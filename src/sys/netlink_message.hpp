// SPDX-License-Identifier: MIT
#pragma once
#include <libmnl/libmnl.h>
#include <linux/netlink.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>

#include "sys/address.hpp"

namespace tcpmig::sys {

/// A netlink request under construction: header, family's own header, attributes. A request that
/// grows too large throws.
class NetlinkRequest {
 public:
  NetlinkRequest(std::uint16_t type, std::uint16_t flags);
  NetlinkRequest(const NetlinkRequest&) = delete;
  NetlinkRequest& operator=(const NetlinkRequest&) = delete;

  /// Room for the family's own header, zeroed. Before the first attribute.
  template <typename Header>
  Header& header() {
    return *static_cast<Header*>(mnl_nlmsg_put_extra_header(message_, sizeof(Header)));
  }
  void put(std::uint16_t type, std::span<const std::byte> value);
  void put_u32(std::uint16_t type, std::uint32_t value);
  void put_string(std::uint16_t type, const std::string& value);
  void put_address(std::uint16_t type, const Address& address);  ///< 4 or 16 bytes
  void nest(std::uint16_t type, const std::function<void()>& inside);

  [[nodiscard]] nlmsghdr* message() noexcept { return message_; }

 private:
  static constexpr std::size_t kSize = 2048;
  alignas(nlmsghdr) std::array<char, kSize> buffer_{};
  nlmsghdr* message_;
};

using AttributeVisitor = std::function<void(int type, const nlattr& attribute)>;

/// The attributes of a received message that begin `offset` bytes into its payload (after the
/// family's own header).
void for_each_attribute(const nlmsghdr& message, std::size_t offset, const AttributeVisitor& visit);

/// The bytes of an attribute as an address, if it is 4 or 16 bytes long.
Address attribute_address(const nlattr& attribute);
std::uint32_t attribute_u32(const nlattr& attribute);  ///< 0 when it is not four bytes long

/// Asks for the kernel's own words in error replies, and bounds the wait for a reply.
void prepare_netlink_socket(int fd);

/// Sends the request with this sequence number, takes in every reply, and returns 0 or the kernel's
/// errno. `visit` sees every message with data. `explanation` receives the kernel's extended
/// acknowledgement. A dump that the kernel calls inconsistent returns EINTR. Throws only when the
/// socket itself fails.
struct NetlinkOutcome {
  int error = 0;
  std::string explanation;
};
NetlinkOutcome exchange(int fd, NetlinkRequest& request, std::uint32_t sequence,
                        const std::function<void(const nlmsghdr&)>& visit = {});

/// Throws std::system_error: "what (explanation): errno text".
[[noreturn]] void throw_outcome(const std::string& what, const NetlinkOutcome& outcome);

}  // namespace tcpmig::sys
