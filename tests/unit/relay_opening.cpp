// SPDX-License-Identifier: MIT
// What a relayed server is told of its client.
#include <string>

#include "catch.hpp"
#include "relay/opening.hpp"

using namespace tcpmig;
using namespace std::string_literals;
using config::Announce;

namespace {

sys::Endpoint at(const char* address, std::uint16_t port) {
  return {sys::Address::parse(address).value(), port};
}

std::string opening_of(Announce announce, const relay::Client& client,
                       const std::string& received) {
  const auto bytes =
      relay::opening(announce, client, std::as_bytes(std::span(received.data(), received.size())));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

relay::Client client_of(const std::string& received, const char* address = "192.0.2.7") {
  return {at(address, 0x1234), at("203.0.113.10", 80), received.find("\r\n\r\n") + 4};
}

}  // namespace

TEST_CASE("relay: nothing is announced where nothing shall be") {
  const std::string request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\nmore";
  CHECK(opening_of(Announce::kNone, client_of(request), request) == request);
}

TEST_CASE("relay: the PROXY protocol, version 2") {
  const std::string request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  const std::string signature = "\r\n\r\n\0\r\nQUIT\n"s;
  CHECK(opening_of(Announce::kProxyV2, client_of(request), request) ==
        signature + "\x21\x11\x00\x0c\xc0\x00\x02\x07\xcb\x00\x71\x0a\x12\x34\x00\x50"s + request);
  relay::Client client = client_of(request);
  client.client = at("2001:db8::1", 0x1234);
  client.service = at("2001:db8:113::10", 443);
  CHECK(opening_of(Announce::kProxyV2, client, request) ==
        signature + "\x21\x21\x00\x24"s + "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"s +
            "\x20\x01\x0d\xb8\x01\x13\0\0\0\0\0\0\0\0\0\x10"s + "\x12\x34\x01\xbb"s + request);
}

TEST_CASE("relay: X-Forwarded-For, and the connection ends with the answer") {
  const std::string request =
      "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nCONNECTION: Keep-Alive\r\n"
      "Keep-Alive: 5\r\n\r\nPOST";
  CHECK(opening_of(Announce::kForwardedFor, client_of(request), request) ==
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\n"
        "X-Forwarded-For: 192.0.2.7\r\nConnection: close\r\n\r\nPOST");
  const std::string upgrade =
      "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
  CHECK(opening_of(Announce::kForwardedFor, client_of(upgrade), upgrade) ==
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "X-Forwarded-For: 192.0.2.7\r\n\r\n");
}
