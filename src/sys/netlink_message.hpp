// SPDX-License-Identifier: MIT
#pragma once
#include <libmnl/libmnl.h>
#include <linux/netlink.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sys/address.hpp"
#include "sys/unique_fd.hpp"

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

/// Those inside an attribute.
void for_each_nested(const nlattr& outer, const AttributeVisitor& visit);

/// The bytes of an attribute as an address, if it is 4 or 16 bytes long.
Address attribute_address(const nlattr& attribute);
std::uint32_t attribute_u32(const nlattr& attribute);   ///< 0 when it is not four bytes long
std::string attribute_string(const nlattr& attribute);  ///< empty when it does not end in zero

/// A netlink socket of this protocol that asks for the kernel's own words in errors and for strict
/// checking of dump requests (so that the kernel filters), and whose waits have a deadline.
UniqueFd open_netlink(int protocol);

struct NetlinkOutcome {
  int error = 0;  ///< errno
  std::string explanation;
};

/// Sends the request with this sequence number, takes in every reply, and returns what the kernel
/// said; `visit` sees every message with data. A dump that the kernel calls inconsistent is EINTR.
/// Throws only when the socket itself fails.
NetlinkOutcome exchange(int fd, NetlinkRequest& request, std::uint32_t sequence,
                        const std::function<void(const nlmsghdr&)>& visit = {});
/// The same for a question that one message answers: no acknowledgement behind it is asked for.
NetlinkOutcome ask(int fd, NetlinkRequest& request, std::uint32_t sequence,
                   const std::function<void(const nlmsghdr&)>& visit);

/// False if the outcome is one of `tolerated`; any other error is thrown: "what (explanation):
/// errno text".
bool succeeded(const std::string& what, const NetlinkOutcome& outcome,
               std::initializer_list<int> tolerated = {});

/// Every message of a dump as `parse` understands it (nullopt: not one of ours), asked again while
/// the kernel says that it changed underway.
template <typename Item>
std::vector<Item> dump(int fd, const std::string& what, NetlinkRequest& request,
                       std::uint32_t& sequence,
                       const std::function<std::optional<Item>(const nlmsghdr&)>& parse,
                       std::initializer_list<int> tolerated = {}) {
  constexpr int kAttempts = 16;
  std::vector<Item> items;
  NetlinkOutcome outcome{.error = EINTR, .explanation = {}};
  for (int i = 0; i < kAttempts && outcome.error == EINTR; ++i) {
    items.clear();
    outcome = exchange(fd, request, ++sequence, [&](const nlmsghdr& message) {
      if (auto item = parse(message)) items.push_back(std::move(*item));
    });
  }
  succeeded(what, outcome, tolerated);
  return items;
}

}  // namespace tcpmig::sys
