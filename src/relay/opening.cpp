// SPDX-License-Identifier: MIT
#include "relay/opening.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <string_view>

namespace tcpmig::relay {
namespace {

bool equal_nocase(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

std::string_view name_of(std::string_view line) { return line.substr(0, line.find(':')); }

void append(std::vector<std::byte>& bytes, std::string_view text) {
  const auto raw = std::as_bytes(std::span(text));
  bytes.insert(bytes.end(), raw.begin(), raw.end());
}

void append_be16(std::vector<std::byte>& bytes, std::uint16_t value) {
  bytes.push_back(static_cast<std::byte>(value >> 8));
  bytes.push_back(static_cast<std::byte>(value & 0xff));
}

/// Version 2, command PROXY, TCP over IPv4 or IPv6: signature, then addresses and ports, all in network order.
std::vector<std::byte> proxy_v2(const Client& client) {
  constexpr std::string_view kSignature("\r\n\r\n\0\r\nQUIT\n", 12);
  const bool ipv4 = client.client.address.is_ipv4();
  const std::size_t first = ipv4 ? 12 : 0;  // raw addresses are v4-mapped
  std::vector<std::byte> header;
  append(header, kSignature);
  header.push_back(std::byte{0x21});
  header.push_back(ipv4 ? std::byte{0x11} : std::byte{0x21});
  append_be16(header, ipv4 ? 12 : 36);
  for (const sys::Endpoint& end : {client.client, client.service}) {
    const abi::ip_address raw = end.address.raw();
    const auto bytes = std::as_bytes(std::span(raw.bytes)).subspan(first);
    header.insert(header.end(), bytes.begin(), bytes.end());
  }
  append_be16(header, client.client.port);
  append_be16(header, client.service.port);
  return header;
}

std::vector<std::string_view> lines_of(std::string_view head) {
  std::vector<std::string_view> lines;
  while (!head.empty()) {
    const std::size_t end = std::min(head.find("\r\n"), head.size());
    if (end > 0) lines.push_back(head.substr(0, end));
    head.remove_prefix(std::min(end + 2, head.size()));
  }
  return lines;
}

/// RFC 9110, 7.6.1: what is about one connection only.
bool is_hop_by_hop(std::string_view line) {
  static constexpr std::array<std::string_view, 3> kNames{"connection", "keep-alive",
                                                          "proxy-connection"};
  return std::ranges::any_of(
      kNames, [&](std::string_view name) { return equal_nocase(name_of(line), name); });
}

/// The head without what is about the client's connection, and with what is about ours.
std::vector<std::byte> forwarded_head(const Client& client, std::string_view head) {
  const std::vector<std::string_view> lines = lines_of(head);
  const bool upgrades = std::ranges::any_of(
      lines, [](std::string_view line) { return equal_nocase(name_of(line), "upgrade"); });
  std::vector<std::byte> result;
  for (const std::string_view line : lines) {
    if (!upgrades && is_hop_by_hop(line)) continue;
    append(result, line);
    append(result, "\r\n");
  }
  append(result, "X-Forwarded-For: " + client.client.address.str() + "\r\n");
  append(result, upgrades ? "\r\n" : "Connection: close\r\n\r\n");
  return result;
}

}  // namespace

std::vector<std::byte> opening(config::Announce announce, const Client& client,
                               std::span<const std::byte> received) {
  std::vector<std::byte> result;
  std::span<const std::byte> rest = received;
  if (announce == config::Announce::kProxyV2) {
    result = proxy_v2(client);
  } else if (announce == config::Announce::kForwardedFor) {
    const std::size_t length = std::min(client.head_length, received.size());
    result = forwarded_head(client, {reinterpret_cast<const char*>(received.data()), length});
    rest = received.subspan(length);
  }
  result.insert(result.end(), rest.begin(), rest.end());
  return result;
}

}  // namespace tcpmig::relay
