// SPDX-License-Identifier: MIT
#include "sys/address.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace tcpmig {
namespace {

constexpr std::array<std::uint8_t, 12> kMapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/// How many bits stand before those the prefix length counts.
int mapped_bits(const Address& address) noexcept { return address.is_ipv4() ? 96 : 0; }

/// The mask of byte `index` for a prefix of `bits` bits.
std::uint8_t mask_of_byte(int bits, int index) noexcept {
  const int ones = std::clamp(bits - index * 8, 0, 8);
  return static_cast<std::uint8_t>(0xff00U >> ones);
}

std::string quoted(std::string_view text) { return "'" + std::string(text) + "'"; }

}  // namespace

Address::Address(const abi::ip_address& raw) noexcept {
  std::copy(std::begin(raw.bytes), std::end(raw.bytes), bytes_.begin());
}

Address Address::from_v4(const in_addr& v4) noexcept {
  abi::ip_address raw{};
  std::copy(kMapped.begin(), kMapped.end(), raw.bytes);
  std::memcpy(raw.bytes + kMapped.size(), &v4, sizeof v4);
  return Address(raw);
}

Address Address::from_v6(const in6_addr& v6) noexcept {
  abi::ip_address raw{};
  std::memcpy(raw.bytes, &v6, sizeof v6);
  return Address(raw);
}

Address Address::from_sockaddr(const sockaddr_storage& storage) noexcept {
  return Endpoint::from_sockaddr(storage).address;
}

std::expected<Address, std::string> Address::parse(std::string_view text) {
  const std::string terminated(text);
  if (terminated.find('\0') == std::string::npos) {
    in_addr v4{};
    if (::inet_pton(AF_INET, terminated.c_str(), &v4) == 1) return from_v4(v4);
    in6_addr v6{};
    if (::inet_pton(AF_INET6, terminated.c_str(), &v6) == 1) return from_v6(v6);
  }
  return std::unexpected(quoted(text) + " is not an IPv4 or IPv6 address");
}

bool Address::is_set() const noexcept { return *this != Address{}; }

bool Address::is_ipv4() const noexcept {
  return std::equal(kMapped.begin(), kMapped.end(), bytes_.begin());
}

bool Address::is_ipv6() const noexcept { return is_set() && !is_ipv4(); }

int Address::family() const noexcept { return is_ipv4() ? AF_INET : AF_INET6; }

abi::ip_address Address::raw() const noexcept {
  abi::ip_address raw{};
  std::copy(bytes_.begin(), bytes_.end(), raw.bytes);
  return raw;
}

in_addr Address::v4() const noexcept {
  in_addr v4{};
  std::memcpy(&v4, bytes_.data() + kMapped.size(), sizeof v4);
  return v4;
}

in6_addr Address::v6() const noexcept {
  in6_addr v6{};
  std::memcpy(&v6, bytes_.data(), sizeof v6);
  return v6;
}

std::string Address::str() const {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const void* source = is_ipv4() ? bytes_.data() + kMapped.size() : bytes_.data();
  ::inet_ntop(family(), source, text.data(), static_cast<socklen_t>(text.size()));
  return text.data();
}

std::expected<Prefix, std::string> Prefix::parse(std::string_view text) {
  const auto slash = text.find('/');
  const auto address = Address::parse(text.substr(0, slash));
  if (!address) return std::unexpected(address.error());
  const int most = address->is_ipv4() ? 32 : 128;
  if (slash == std::string_view::npos) return Prefix{*address, most};
  const std::string_view digits = text.substr(slash + 1);
  int length = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (error != std::errc{} || end != digits.data() + digits.size() || length < 0 || length > most)
    return std::unexpected(quoted(text) + ": the prefix length must be a number from 0 to " +
                           std::to_string(most));
  return Prefix{*address, length};
}

bool Prefix::contains(const Address& other) const noexcept {
  if (address.is_ipv4() != other.is_ipv4()) return false;
  return Prefix{other, length}.network().address == network().address;
}

Prefix Prefix::network() const noexcept {
  abi::ip_address raw = address.raw();
  const int bits = mapped_bits(address) + length;
  for (int i = 0; i < 16; ++i)
    raw.bytes[i] = static_cast<std::uint8_t>(raw.bytes[i] & mask_of_byte(bits, i));
  return {Address(raw), length};
}

std::string Prefix::str() const { return address.str() + "/" + std::to_string(length); }

Endpoint Endpoint::from_sockaddr(const sockaddr_storage& storage) noexcept {
  if (storage.ss_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, &storage, sizeof in);
    return {Address::from_v4(in.sin_addr), ntohs(in.sin_port)};
  }
  if (storage.ss_family == AF_INET6) {
    sockaddr_in6 in6{};
    std::memcpy(&in6, &storage, sizeof in6);
    return {Address::from_v6(in6.sin6_addr), ntohs(in6.sin6_port)};
  }
  return {};
}

std::pair<sockaddr_storage, socklen_t> Endpoint::to_sockaddr(bool mapped) const noexcept {
  std::pair<sockaddr_storage, socklen_t> result{};
  if (address.is_ipv4() && !mapped) {
    const sockaddr_in in{
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = address.v4(), .sin_zero = {}};
    std::memcpy(&result.first, &in, sizeof in);
    result.second = sizeof in;
  } else {
    sockaddr_in6 in6{};
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(port);
    in6.sin6_addr = address.v6();
    std::memcpy(&result.first, &in6, sizeof in6);
    result.second = sizeof in6;
  }
  return result;
}

std::string Endpoint::str() const {
  const std::string host = address.str();
  return (address.is_ipv4() ? host : "[" + host + "]") + ":" + std::to_string(port);
}

}  // namespace tcpmig
