// SPDX-License-Identifier: MIT
#include <arpa/inet.h>

#include <cstring>

#include "catch.hpp"
#include "sys/address.hpp"

using tcpmig::sys::Address;
using tcpmig::sys::Endpoint;
using tcpmig::sys::Prefix;

namespace {
Address address(const char* text) { return Address::parse(text).value(); }
Prefix prefix(const char* text) { return Prefix::parse(text).value(); }
}  // namespace

TEST_CASE("address: addresses are printed as they are read") {
  for (const char* text :
       {"0.0.0.0", "192.0.2.1", "255.255.255.255", "::1", "2001:db8::1", "fe80::1", "::"})
    CHECK(address(text).str() == text);
  CHECK(address("2001:DB8:0:0::1").str() == "2001:db8::1");
  CHECK(address("::ffff:192.0.2.1") == address("192.0.2.1"));
}

TEST_CASE("address: what is not an address is named in the error") {
  for (const char* text : {"", "1.2.3", "1.2.3.4.5", "256.0.0.1", "1.2.3.4 ", "fe80::1%eth0", "::g",
                           "[::1]", "localhost"}) {
    const auto parsed = Address::parse(text);
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error() == "'" + std::string(text) + "' is not an IPv4 or IPv6 address");
  }
  CHECK_FALSE(Address::parse(std::string_view("1.2.3.4\0x", 9)));
}

TEST_CASE("address: an address knows its family") {
  CHECK(address("192.0.2.1").is_ipv4());
  CHECK(address("192.0.2.1").family() == AF_INET);
  CHECK(address("0.0.0.0").is_ipv4());
  CHECK(address("2001:db8::1").is_ipv6());
  CHECK(address("2001:db8::1").family() == AF_INET6);
  CHECK_FALSE(Address().is_set());
  CHECK_FALSE(Address().is_ipv4());
  CHECK_FALSE(Address().is_ipv6());
  CHECK(address("0.0.0.0").is_set());
}

TEST_CASE("address: raw addresses are v4-mapped, in network order") {
  const auto raw = address("192.0.2.1").raw();
  const unsigned char expected[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1};
  CHECK(std::memcmp(raw.bytes, expected, sizeof expected) == 0);
  CHECK(Address(raw) == address("192.0.2.1"));
  CHECK(address("192.0.2.1").v4().s_addr == htonl(0xc0000201));
  CHECK(Address::from_v4(address("192.0.2.1").v4()) == address("192.0.2.1"));
  CHECK(Address::from_v6(address("2001:db8::7").v6()) == address("2001:db8::7"));
}

TEST_CASE("address: addresses sort by their bytes") {
  CHECK(address("10.0.0.1") < address("10.0.0.2"));
  CHECK(address("9.255.255.255") < address("10.0.0.0"));
  CHECK(address("10.0.0.1") < address("2001:db8::1"));
}

TEST_CASE("address: prefixes are read, printed and refused") {
  for (const char* text :
       {"10.0.0.0/8", "10.1.2.3/8", "0.0.0.0/0", "::/0", "fd7c::/64", "192.0.2.1/32"})
    CHECK(prefix(text).str() == text);
  CHECK(prefix("192.0.2.1").length == 32);
  CHECK(prefix("2001:db8::1").length == 128);
  for (const char* text : {"10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8x", "10.0.0.0/ 8",
                           "::/129", "/8", "10/8"})
    CHECK_FALSE(Prefix::parse(text));
  CHECK(Prefix::parse("10.0.0.0/33").error() ==
        "'10.0.0.0/33': the prefix length must be a number from 0 to 32");
}

TEST_CASE("address: a prefix contains its addresses and no others") {
  CHECK(prefix("10.0.0.0/8").contains(address("10.255.0.1")));
  CHECK_FALSE(prefix("10.0.0.0/8").contains(address("11.0.0.0")));
  CHECK(prefix("10.1.2.3/8").contains(address("10.0.0.1")));
  CHECK(prefix("192.0.2.128/25").contains(address("192.0.2.129")));
  CHECK_FALSE(prefix("192.0.2.128/25").contains(address("192.0.2.127")));
  CHECK(prefix("192.0.2.1").contains(address("192.0.2.1")));
  CHECK_FALSE(prefix("192.0.2.1").contains(address("192.0.2.0")));
  CHECK(prefix("fd7c::/64").contains(address("fd7c::1:2")));
  CHECK_FALSE(prefix("fd7c::/64").contains(address("fd7c:0:0:1::")));
  CHECK(prefix("2001:db8::/33").contains(address("2001:db8:7fff::1")));
  CHECK_FALSE(prefix("2001:db8::/33").contains(address("2001:db8:8000::1")));
  CHECK(prefix("0.0.0.0/0").contains(address("192.0.2.1")));
  CHECK_FALSE(prefix("0.0.0.0/0").contains(address("::1")));
  CHECK(prefix("::/0").contains(address("2001:db8::1")));
  CHECK_FALSE(prefix("::/0").contains(address("192.0.2.1")));
}

TEST_CASE("address: the network of a prefix has no host bits") {
  CHECK(prefix("10.1.2.3/8").network() == prefix("10.0.0.0/8"));
  CHECK(prefix("10.1.2.3/0").network() == prefix("0.0.0.0/0"));
  CHECK(prefix("2001:db8::ffff/113").network() == prefix("2001:db8::8000/113"));
  CHECK(prefix("192.0.2.1").network() == prefix("192.0.2.1"));
}

TEST_CASE("address: endpoints survive a round trip through a sockaddr") {
  for (const Endpoint endpoint :
       {Endpoint{address("192.0.2.1"), 80}, Endpoint{address("2001:db8::1"), 65535}}) {
    const auto [storage, length] = endpoint.to_sockaddr();
    CHECK(Endpoint::from_sockaddr(storage) == endpoint);
    CHECK(Address::from_sockaddr(storage) == endpoint.address);
    CHECK(length == (endpoint.address.is_ipv4() ? sizeof(sockaddr_in) : sizeof(sockaddr_in6)));
  }
}

TEST_CASE("address: an IPv4 endpoint can go into an IPv6 socket address") {
  const Endpoint endpoint{address("192.0.2.1"), 80};
  const auto [storage, length] = endpoint.to_sockaddr(true);
  CHECK(storage.ss_family == AF_INET6);
  CHECK(length == sizeof(sockaddr_in6));
  CHECK(Endpoint::from_sockaddr(storage) == endpoint);
}

TEST_CASE("address: a socket address of another family gives nothing") {
  sockaddr_storage storage{};
  storage.ss_family = AF_UNIX;
  CHECK(Endpoint::from_sockaddr(storage) == Endpoint{});
}

TEST_CASE("address: endpoints are printed with brackets around IPv6") {
  CHECK(Endpoint{address("192.0.2.1"), 80}.str() == "192.0.2.1:80");
  CHECK(Endpoint{address("2001:db8::1"), 80}.str() == "[2001:db8::1]:80");
}
