// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <endian.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include <tcpmig/migrate.hpp>
#include "catch.hpp"
#include "control/transfer_messages.hpp"
#include "control/whole.hpp"
#include "sys/errors.hpp"

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

/// Node 1 is a dispatcher, 2, 3, 4, 102 and 103 are servers.
config::Config cluster() {
  config::Config config;
  for (const std::uint16_t id : std::initializer_list<std::uint16_t>{1, 2, 3, 4, 102, 103}) {
    config::Node node;
    node.id = id;
    node.role = id == 1 ? config::Role::kDispatcher : config::Role::kServer;
    config.nodes.push_back(node);
  }
  return config;
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
  CHECK(control::Opener(rotated, cluster(), 3).open(datagram(message)));
  control::Sealer newer(rotated, 2, 0);
  newer.seal(message);
  CHECK(control::Opener(old, cluster(), 3).open(datagram(message)).error() == Reject::kUnknownKey);
}

TEST_CASE("control: a key is changed in three steps, and each step understands its neighbours") {
  const SecretFile file("# ours\n255 " + std::string(64, 'a') + "\n");
  const auto understands = [](const control::Secret& from, const control::Secret& to) {
    control::Sealer sealer(from, 2, 0);
    control::Outgoing message{};
    message.header.type = abi::WIRE_ABORT;
    message.header.target = htons(3);
    sealer.seal(message);
    return control::Opener(to, cluster(), 3).open(datagram(message)).has_value();
  };
  CHECK_THROWS_AS(control::Secret::use_second(file.path()), sys::WrongSetup);
  CHECK_THROWS_AS(control::Secret::drop_second(file.path()), sys::WrongSetup);
  const auto before = control::Secret::load(file.path());
  auto former = before;
  for (const auto step :
       {control::Secret::add_key, control::Secret::use_second, control::Secret::drop_second}) {
    step(file.path());
    const auto next = control::Secret::load(file.path());
    CHECK(understands(former, next));
    CHECK(understands(next, former));
    former = next;
  }
  CHECK(former.current_id() == 2);  // after 255, and even where the former was odd
  CHECK_FALSE(understands(before, former));
  std::ifstream input(file.path());
  std::string first;
  std::getline(input, first);
  CHECK(first == "# ours");
  CHECK_FALSE(std::filesystem::exists(file.path().string() + ".new"));
  control::Secret::add_key(file.path());
  CHECK_THROWS_AS(control::Secret::add_key(file.path()), sys::WrongSetup);
}

TEST_CASE("control: transfers of any size arrive as they were") {
  const auto secret = control::Secret::load(SecretFile().path());
  control::Sealer sealer(secret, 2, 1);
  const control::Opener opener(secret, cluster(), 3);
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

TEST_CASE("control: a whole connection and its blob arrive as they were") {
  const auto secret = control::Secret::load(SecretFile().path());
  control::Sealer sealer(secret, 2, 0);
  const control::Opener opener(secret, cluster(), 3);
  Snapshot snapshot = sample(5000);
  snapshot.snd_una = {0xffffff00};
  snapshot.snd_nxt = {0x40};
  snapshot.sent.assign(0x140, std::byte{7});
  snapshot.unsent.assign(3000, std::byte{9});
  const std::vector<std::byte> blob(100'000, std::byte{5});
  const auto payload = control::encode_whole(snapshot, blob);
  auto messages = control::whole_messages(transfer(), snapshot, payload);
  std::vector<std::byte> received;
  for (control::Outgoing& message : messages) {
    sealer.seal(message);
    CHECK(message.header.version == abi::WIRE_VERSION_WHOLE);
    const auto bytes = datagram(message);
    const auto opened = opener.open(bytes);
    REQUIRE(opened);
    CHECK(ntohl(opened->header.payload_seq) == received.size());
    CHECK(ntohl(opened->header.snd_nxt) == snapshot.snd_una.value);
    received.insert(received.end(), opened->payload.begin(), opened->payload.end());
  }
  const sys::Endpoint here{*sys::Address::parse("100.64.128.1"), 8081};
  const abi::wire_header& commit = messages.back().header;
  const auto whole = control::decode_whole(commit, received, here);
  REQUIRE(whole);
  CHECK(whole->blob == blob);
  CHECK(whole->snapshot.local == here);
  CHECK(whole->snapshot.sent == snapshot.sent);
  CHECK(whole->snapshot.unsent == snapshot.unsent);
  for (const std::size_t cut : {std::size_t{0}, std::size_t{3}, std::size_t{4}, std::size_t{2000}})
    CHECK_FALSE(control::decode_whole(commit, std::span(received).first(cut), here));
  received.resize(received.size() + kMaxBlob);
  CHECK_FALSE(control::decode_whole(commit, received, here));
  abi::wire_header another = commit;
  another.client_port = htons(40001);
  CHECK_FALSE(control::decode_whole(another, payload, here));
  CHECK(control::whole_messages(transfer(), snapshot, std::vector<std::byte>(abi::WIRE_WHOLE_MAX))
            .size() <= abi::WIRE_WHOLE_PARTS_MAX);
  CHECK_THROWS_AS(control::whole_messages(transfer(), snapshot,
                                          std::vector<std::byte>(abi::WIRE_WHOLE_MAX + 1)),
                  std::length_error);
}

TEST_CASE("control: the flag of a whole connection and the version go together") {
  const auto secret = control::Secret::load(SecretFile().path());
  control::Sealer sealer(secret, 2, 0);
  const control::Opener opener(secret, cluster(), 3);
  const Snapshot snapshot = sample(100);
  const auto payload = control::encode_whole(snapshot, {});
  const auto outcome = [&](unsigned flags, unsigned parts, unsigned total, int version = -1) {
    auto messages = control::whole_messages(transfer(), snapshot, payload);
    control::Outgoing& message = messages.back();
    message.header.flags = static_cast<std::uint8_t>(flags);
    message.header.parts = htons(static_cast<std::uint16_t>(parts));
    message.header.total_length = htonl(total);
    sealer.seal(message);
    auto bytes = datagram(message);
    if (version >= 0) bytes[4] = static_cast<std::byte>(version);
    const auto opened = opener.open(bytes);
    return opened ? std::string("taken") : control::to_string(opened.error());
  };
  const std::string of_another = control::to_string(Reject::kVersion);
  const std::string out_of_range = control::to_string(Reject::kField);
  CHECK(outcome(abi::WIRE_FLAG_WHOLE, 1, 100) == "taken");
  CHECK(outcome(abi::WIRE_FLAG_WHOLE, abi::WIRE_WHOLE_PARTS_MAX, abi::WIRE_WHOLE_MAX) == "taken");
  CHECK(outcome(abi::WIRE_FLAG_WHOLE, abi::WIRE_WHOLE_PARTS_MAX + 1, 100) == out_of_range);
  CHECK(outcome(abi::WIRE_FLAG_WHOLE, 1, abi::WIRE_WHOLE_MAX + 1) == out_of_range);
  CHECK(outcome(0, abi::WIRE_PARTS_MAX + 1, 100) == out_of_range);
  CHECK(outcome(0, 1, abi::WIRE_SNAPSHOT_MAX + 1) == out_of_range);
  CHECK(outcome(abi::WIRE_FLAG_WHOLE, 1, 100, abi::WIRE_VERSION) == of_another);
  CHECK(outcome(0, 1, 100, abi::WIRE_VERSION_WHOLE) == of_another);
  CHECK(outcome(32, 1, 100) == of_another);
}

TEST_CASE("control: every way in which a datagram can be wrong") {
  const auto secret = control::Secret::load(SecretFile().path());
  control::Sealer sealer(secret, 2, 0);
  const control::Opener opener(secret, cluster(), 3);
  const Snapshot snapshot = sample(100);
  auto messages = control::transfer_messages(transfer(), snapshot);
  sealer.seal(messages.front());
  const auto good = datagram(messages.front());
  REQUIRE(opener.open(good));
  CHECK(opener.open(std::span(good).first(100)).error() == Reject::kTruncated);
  CHECK(opener.open(std::span(good).first(good.size() - 1)).error() == Reject::kLength);
  CHECK(control::Opener(secret, cluster(), 4).open(good).error() == Reject::kNotForUs);
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

TEST_CASE("control: only who is in the configuration is heard, and only with what its role says") {
  const auto secret = control::Secret::load(SecretFile().path());
  const control::Opener opener(secret, cluster(), 3);
  const auto outcome = [&](std::uint16_t sender, std::uint8_t type) -> std::string {
    control::Sealer sealer(secret, sender, 0);
    control::Outgoing message{};
    message.header.type = type;
    message.header.target = htons(3);
    message.header.parts = htons(1);
    sealer.seal(message);
    // GONE and RENEW carry no tag for a node
    message.header.target_tag = control::siphash(
        secret.pair_keys(sender, 3).key[1],
        std::as_bytes(std::span(&message.header, 1)).first(abi::WIRE_TAGGED), message.payload);
    const auto opened = opener.open(datagram(message));
    return opened ? "heard" : control::to_string(opened.error());
  };
  const std::string heard = "heard", not_his = control::to_string(Reject::kSender);
  for (const std::uint8_t type :
       {abi::WIRE_COMMIT, abi::WIRE_DATA, abi::WIRE_ABORT, abi::WIRE_SEGMENT}) {
    CHECK(outcome(0, type) == (type == abi::WIRE_ABORT ? heard : not_his));
    CHECK(outcome(1, type) == heard);
    CHECK(outcome(2, type) == heard);  // an owner hands on
  }
  for (const std::uint8_t type : {abi::WIRE_RESUMED, abi::WIRE_REFUSED, abi::WIRE_ABORTED,
                                  abi::WIRE_MISSING, abi::WIRE_LOAD}) {
    const bool of_switch = type == abi::WIRE_RESUMED || type == abi::WIRE_REFUSED;
    CHECK(outcome(0, type) == (of_switch ? heard : not_his));
    CHECK(outcome(1, type) == not_his);
    CHECK(outcome(2, type) == heard);
  }
  CHECK(outcome(0, abi::WIRE_REVOKED) == heard);
  CHECK(outcome(0, abi::WIRE_HEARTBEAT) == heard);
  for (const std::uint16_t sender : std::initializer_list<std::uint16_t>{1, 2}) {
    CHECK(outcome(sender, abi::WIRE_REVOKED) == not_his);
    CHECK(outcome(sender, abi::WIRE_GONE) == not_his);
    CHECK(outcome(sender, abi::WIRE_RENEW) == not_his);
  }
  for (std::uint8_t type = abi::WIRE_COMMIT; type < abi::WIRE_TYPE_MAX; ++type)
    for (const std::uint16_t stranger :
         std::initializer_list<std::uint16_t>{3, 7, 1023})  // itself, and who is not in the file
      CHECK(outcome(stranger, type) == control::to_string(Reject::kUnknownKey));
}

TEST_CASE("control: what the switch says is under the key of the node that it is said to") {
  const SecretFile file;
  const control::Secret secret = control::Secret::load(file.path());
  control::Sealer of_switch(secret, 0, 0);
  control::Outgoing message;
  message.header.type = abi::WIRE_REVOKED;
  message.header.target = htons(102);
  of_switch.seal(message);
  const auto opened = control::Opener(secret, cluster(), 102).open(datagram(message));
  REQUIRE(opened);
  CHECK(opened->header.sender == 0);
  message.header.target = htons(103);
  CHECK(control::Opener(secret, cluster(), 103).open(datagram(message)).error() == Reject::kTag);
}

TEST_CASE("control: generations are compared serially") {
  CHECK(control::newer(1, 0));
  CHECK(control::newer(0, abi::GENERATION_MASK));
  CHECK_FALSE(control::newer(0, 0));
  CHECK_FALSE(control::newer(0, 1));
  CHECK(control::next_generation(abi::GENERATION_MASK) == 0);
}
