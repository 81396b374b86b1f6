// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <endian.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "catch.hpp"
#include "control/message.hpp"

using namespace tcpmig;
using control::Reject;

namespace {

/// A secret of its own, in a file that goes with it.
class SecretFile {
 public:
  explicit SecretFile(const std::string& text = {}) {
    std::string name = (std::filesystem::temp_directory_path() / "tcpmig-secret-XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
    if (text.empty()) {
      control::Secret::generate(path());
    } else {
      std::ofstream(path()) << text;
      ::chmod(path().c_str(), 0600);
    }
  }
  ~SecretFile() { std::filesystem::remove_all(directory_); }
  [[nodiscard]] std::filesystem::path path() const { return directory_ / "secret"; }

 private:
  std::filesystem::path directory_;
};

Snapshot sample(std::size_t received) {
  Snapshot snapshot;
  snapshot.local = {*sys::Address::parse("100.64.64.1"), 80};
  snapshot.peer = {*sys::Address::parse("10.0.1.2"), 40000};
  snapshot.rcv_nxt = {100};  // the received bytes begin before the wrap
  snapshot.snd_nxt = snapshot.snd_una = {0xfffffff0};
  snapshot.snd_wnd = 64240;
  snapshot.mss = 1460;
  snapshot.wscale = WindowScale{7, 10};
  snapshot.timestamps = Timestamps{1000, 2000, false};
  snapshot.sack = true;
  snapshot.srtt_us = 1234;
  for (std::size_t i = 0; i < received; ++i)
    snapshot.received.push_back(static_cast<std::byte>(i * 7));
  return snapshot;
}

std::vector<std::byte> datagram(const control::Outgoing& message) {
  const auto header = std::as_bytes(std::span(&message.header, 1));
  std::vector<std::byte> bytes(header.begin(), header.end());
  bytes.insert(bytes.end(), message.payload.begin(), message.payload.end());
  return bytes;
}

control::Transfer transfer() {
  return {2, 3, 1, 8080, 1, 77, {*sys::Address::parse("10.0.1.2"), 40000}};
}

}  // namespace

TEST_CASE("control: SipHash-2-4 agrees with its authors' vectors, in any two pieces") {
  // Aumasson and Bernstein, appendix A: key 00..0f, message 00..0e.
  abi::siphash_key key{0x0706050403020100, 0x0f0e0d0c0b0a0908};
  std::vector<std::byte> message(15);
  for (std::size_t i = 0; i < message.size(); ++i) message[i] = static_cast<std::byte>(i);
  for (std::size_t cut = 0; cut <= message.size(); ++cut)
    CHECK(control::siphash(key, std::span(message).first(cut), std::span(message).subspan(cut)) ==
          0xa129ca6149be45e5);
  CHECK(control::siphash(key, {}) == 0x726fdb47dd0e0e31);
}

TEST_CASE("control: a secret file is checked") {
  CHECK_THROWS_WITH(control::Secret::load("/nonexistent/secret"),
                    Catch::Matchers::Contains("secret generate"));
  const std::string hex(64, 'a');
  CHECK_THROWS_WITH(control::Secret::load(SecretFile("1 abcd\n").path()),
                    Catch::Matchers::Contains(":1:"));
  CHECK_THROWS(control::Secret::load(SecretFile("0 " + hex + "\n").path()));
  CHECK_THROWS(control::Secret::load(SecretFile("1 " + hex + "\n3 " + hex + "\n").path()));
  CHECK_THROWS(control::Secret::load(SecretFile("# nothing\n").path()));
  const SecretFile open_to_all("1 " + hex + "\n");
  ::chmod(open_to_all.path().c_str(), 0644);
  CHECK_THROWS_WITH(control::Secret::load(open_to_all.path()),
                    Catch::Matchers::Contains("chmod 600"));
  CHECK_THROWS(control::Secret::generate(open_to_all.path()));  // never overwrites
}

TEST_CASE(
    "control: keys differ by node, by direction and by secret, and the previous secret stays "
    "valid") {
  const std::string a(64, 'a');
  const std::string b(64, 'b');
  const auto rotated = control::Secret::load(SecretFile("2 " + b + "\n1 " + a + "\n").path());
  const auto old = control::Secret::load(SecretFile("1 " + a + "\n").path());
  const auto differ = [](const abi::siphash_key& x, const abi::siphash_key& y) {
    return x.k0 != y.k0 || x.k1 != y.k1;
  };
  CHECK(differ(old.pair_keys(1, 2).key[1], old.pair_keys(2, 1).key[1]));
  CHECK(differ(old.pair_keys(1, 2).key[1], old.switch_keys(1).key[1]));
  CHECK(differ(old.switch_keys(1).key[1], old.switch_keys(2).key[1]));
  CHECK_FALSE(differ(old.switch_keys(1).key[1], rotated.switch_keys(1).key[1]));
  CHECK(rotated.current_id() == 2);

  // A message under the old key is opened by who knows both.
  control::Sealer sealer(old, 2, 0);
  control::Outgoing message{};
  message.header.type = abi::WIRE_ABORT;
  message.header.target = htons(3);
  sealer.seal(message);
  CHECK(control::Opener(rotated, 3).open(datagram(message)));
  control::Sealer newer(rotated, 2, 0);
  newer.seal(message);
  CHECK(control::Opener(old, 3).open(datagram(message)).error() == Reject::kUnknownKey);
}

TEST_CASE("control: transfers of any size arrive as they were") {
  const auto secret = control::Secret::load(SecretFile().path());
  control::Sealer sealer(secret, 2, 1);
  const control::Opener opener(secret, 3);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{400}, std::size_t{abi::WIRE_PAYLOAD_MAX_IPV4},
        std::size_t{abi::WIRE_PAYLOAD_MAX_IPV4} + 1, std::size_t{90'000}}) {
    const Snapshot snapshot = sample(size);
    auto messages = control::transfer_messages(transfer(), snapshot);
    std::vector<std::byte> received;
    std::uint64_t last = 0;
    for (control::Outgoing& message : messages) {
      sealer.seal(message);
      CHECK(be64toh(message.header.sequence) > last);
      last = be64toh(message.header.sequence);
      const auto bytes = datagram(message);
      CHECK(bytes.size() <= 1500 - 28);
      const auto opened = opener.open(bytes);
      REQUIRE(opened);
      CHECK(opened->header.type ==
            (&message == &messages.back() ? abi::WIRE_COMMIT : abi::WIRE_DATA));
      CHECK(ntohl(opened->header.payload_seq) ==
            (snapshot.rcv_nxt - static_cast<std::uint32_t>(size - received.size())).value);
      received.insert(received.end(), opened->payload.begin(), opened->payload.end());
    }
    const auto result = control::to_snapshot(messages.back().header, received, snapshot.local);
    REQUIRE(result);
    CHECK(*result == snapshot);
  }
  CHECK_THROWS_AS(control::transfer_messages(transfer(), sample(abi::WIRE_SNAPSHOT_MAX + 1)),
                  std::length_error);
}

TEST_CASE("control: every way in which a datagram can be wrong") {
  const auto secret = control::Secret::load(SecretFile().path());
  control::Sealer sealer(secret, 2, 0);
  const control::Opener opener(secret, 3);
  const Snapshot snapshot = sample(100);
  auto messages = control::transfer_messages(transfer(), snapshot);
  sealer.seal(messages.front());
  const auto good = datagram(messages.front());
  REQUIRE(opener.open(good));
  CHECK(opener.open(std::span(good).first(100)).error() == Reject::kTruncated);
  CHECK(opener.open(std::span(good).first(good.size() - 1)).error() == Reject::kLength);
  CHECK(control::Opener(secret, 4).open(good).error() == Reject::kNotForUs);
  const auto with = [&](std::size_t offset, unsigned value) {
    auto bytes = good;
    bytes[offset] = static_cast<std::byte>(value);
    return opener.open(bytes).error();
  };
  CHECK(with(0, 0) == Reject::kMagic);
  CHECK(with(4, 9) == Reject::kVersion);
  CHECK(with(5, 99) == Reject::kField);
  CHECK(with(6, 9) == Reject::kUnknownKey);
  CHECK(with(20, 200) == Reject::kField);
  CHECK(with(81, 15) == Reject::kField);
  for (std::size_t offset = 0; offset < good.size(); ++offset) {
    if (offset >= 104 && offset < 112) continue;  // the switch's tag
    if (offset >= 120 && offset < 128) continue;  // the switch's stamp
    auto bytes = good;
    bytes[offset] ^= std::byte{1};
    CHECK_FALSE(opener.open(bytes));
  }
}

TEST_CASE("control: generations are compared serially") {
  CHECK(control::newer(1, 0));
  CHECK(control::newer(0, abi::GENERATION_MASK));
  CHECK_FALSE(control::newer(0, 0));
  CHECK_FALSE(control::newer(0, 1));
  CHECK(control::next_generation(abi::GENERATION_MASK) == 0);
}
