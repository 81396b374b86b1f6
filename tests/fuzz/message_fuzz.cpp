// SPDX-License-Identifier: MIT
// Control datagrams: nothing may throw, whatever the bytes; what is opened must become a snapshot or an error.
#include <sys/stat.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>

#include "control/message.hpp"
#include "control/whole.hpp"

namespace {

using namespace tcpmig;

struct Fixture {
  Fixture() {
    std::string name = "/tmp/tcpmig-fuzz-XXXXXX";
    const std::filesystem::path directory = ::mkdtemp(name.data());
    control::Secret::generate(directory / "secret");
    secret = control::Secret::load(directory / "secret");
    std::filesystem::remove_all(directory);
    for (std::uint16_t id = 1; id < abi::MAX_NODES; ++id) {
      config::Node node;
      node.id = id;
      node.role = id % 2 != 0 ? config::Role::kDispatcher : config::Role::kServer;
      config.nodes.push_back(node);
    }
  }
  control::Secret secret;
  config::Config config;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Fixture fixture;
  static const control::Opener opener(fixture.secret, fixture.config, 3);
  std::vector<std::byte> bytes(size);
  if (size != 0) std::memcpy(bytes.data(), data, size);
  (void)opener.open(bytes);
  if (size < sizeof(abi::wire_header)) return 0;
  // Past the tag: give the bytes a right one, so that what stands behind it is reached.
  abi::wire_header header{};
  std::memcpy(&header, bytes.data(), sizeof header);
  const auto keys = fixture.secret.pair_keys(
      static_cast<std::uint16_t>(be16toh(header.sender) % abi::MAX_NODES), 3);
  const auto rest = std::span<const std::byte>(bytes).subspan(sizeof header);
  header.target_tag = control::siphash(
      keys.key[1], std::as_bytes(std::span(&header, 1)).first(abi::WIRE_TAGGED), rest);
  std::memcpy(bytes.data(), &header, sizeof header);
  if (const auto message = opener.open(bytes)) {
    (void)control::to_snapshot(message->header, {message->payload.begin(), message->payload.end()},
                               {});
    (void)control::decode_whole(message->header, message->payload, {});
  }
  return 0;
}
