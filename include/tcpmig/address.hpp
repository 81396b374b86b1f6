// SPDX-License-Identifier: MIT
#pragma once
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <compare>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace tcpmig {

namespace abi {
struct ip_address;  // the same in this project's BPF maps and messages; not installed
}

/// An IPv4 or IPv6 address. Network order inside, v4-mapped for IPv4 (RFC 4291, 2.5.5.2).
class Address {
 public:
  Address() =
      default;  ///< unset: all zero (so "::" reads as unset, and counts as IPv6 where a family is needed)
  explicit Address(const abi::ip_address& raw) noexcept;
  /// Takes AF_INET and AF_INET6 (a v4-mapped sockaddr_in6 becomes an IPv4 address). Anything else: unset.
  static Address from_sockaddr(const sockaddr_storage& storage) noexcept;
  static Address from_v4(const in_addr& v4) noexcept;
  static Address from_v6(const in6_addr& v6) noexcept;
  /// "192.0.2.1", "2001:db8::1". Error: a sentence that says what is wrong.
  static std::expected<Address, std::string> parse(std::string_view text);

  [[nodiscard]] bool is_set() const noexcept;
  [[nodiscard]] bool is_ipv4() const noexcept;  ///< set and v4-mapped
  [[nodiscard]] bool is_ipv6() const noexcept;  ///< set and not v4-mapped
  [[nodiscard]] int family() const noexcept;    ///< AF_INET or AF_INET6
  [[nodiscard]] abi::ip_address raw() const noexcept;
  [[nodiscard]] in_addr v4() const noexcept;  ///< only for is_ipv4()
  [[nodiscard]] in6_addr v6() const noexcept;
  [[nodiscard]] std::string str() const;
  auto operator<=>(const Address&) const = default;

 private:
  std::array<std::uint8_t, 16> bytes_{};
};

/// Address and prefix length; host bits are kept as given.
struct Prefix {
  Address address;
  int length = 0;
  /// "10.0.0.0/8"; without "/n" the length is that of one host.
  static std::expected<Prefix, std::string> parse(std::string_view text);
  [[nodiscard]] bool contains(const Address& other) const noexcept;
  [[nodiscard]] Prefix network() const noexcept;  ///< host bits cleared
  [[nodiscard]] std::string str() const;
  bool operator==(const Prefix&) const = default;
};

/// Address and port (host order).
struct Endpoint {
  Address address;
  std::uint16_t port = 0;
  static Endpoint from_sockaddr(const sockaddr_storage& storage) noexcept;
  /// Length is the second member. IPv4 as sockaddr_in, or as a v4-mapped sockaddr_in6 when `mapped`.
  [[nodiscard]] std::pair<sockaddr_storage, socklen_t> to_sockaddr(
      bool mapped = false) const noexcept;
  [[nodiscard]] std::string str() const;  ///< "192.0.2.1:80", "[2001:db8::1]:80"
  auto operator<=>(const Endpoint&) const = default;
};

}  // namespace tcpmig
