// SPDX-License-Identifier: MIT
// What the switch's maps shall hold, and which datapath is tried first: no kernel needed.
#include "switch/tables.hpp"

#include <arpa/inet.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "catch.hpp"
#include "config_samples.hpp"
#include "switch/datapath.hpp"
#include "switch/sweep.hpp"

using namespace tcpmig;
using config_samples::kGood;

namespace {

control::Secret new_secret() {
  const auto file =
      std::filesystem::temp_directory_path() / ("tcpmig-tables-" + std::to_string(::getpid()));
  control::Secret::generate(file);
  auto secret = control::Secret::load(file);
  std::filesystem::remove(file);
  return secret;
}

std::string text(const abi::ip_address& raw) { return sys::Address(raw).str(); }

}  // namespace

TEST_CASE("switch tables: from the configuration") {
  const config::Config config = config::parse(kGood, "t.toml").value();
  const control::Secret secret = new_secret();
  const auto all = steering::wanted(config, secret,
                                    [](const config::Node& node) { return node.id == 1 ? 4U : 5U; },
                                    {sys::Address::parse("10.0.2.1").value()});
  REQUIRE(all.services.size() == 1);
  CHECK(all.services.at(7).port == htons(80));
  CHECK(text(all.services.at(7).vip6) == "2001:db8::10");
  REQUIRE(all.vips.size() == 4);  // each address with its port, and alone
  CHECK(all.vips[0].second == 7);
  CHECK(all.vips[1].first.port == 0);
  CHECK(all.vips[1].second == 0);
  REQUIRE(all.nodes.size() == 3);
  CHECK(all.nodes.at(1).role == abi::NODE_DISPATCHER);
  CHECK(all.nodes.at(1).ifindex == 4);
  CHECK(all.nodes.at(102).role == abi::NODE_SERVER);
  CHECK(all.nodes.at(102).ifindex == 5);
  CHECK(text(all.nodes.at(102).address4) == "10.0.3.3");
  const abi::key_ring keys = secret.switch_keys(102);
  CHECK(std::memcmp(&all.nodes.at(102).keys, &keys, sizeof keys) == 0);
  CHECK(all.node_addresses.size() == 6);
  CHECK(all.own_addresses.size() == 1);
  CHECK(std::count(all.maglev.begin(), all.maglev.end(), 1U) == abi::MAGLEV_SIZE);
}

TEST_CASE("switch tables: settings keep boot id and hash key unless the maps are new") {
  const config::Config config = config::parse(kGood, "t.toml").value();
  const control::Secret secret = new_secret();
  const auto first = steering::wanted_settings(config, secret, {}, true);
  CHECK(first.closing_ns == 60'000'000'000);
  CHECK(first.idle_ns == 3'600'000'000'000);
  CHECK(first.control_port == htons(7421));
  CHECK(first.vpa4_prefix_length == 10);
  CHECK(first.vpa4_prefix[1] == 64);
  CHECK(first.vpa6_prefix[0] == 0xfd);
  CHECK(first.boot != 0);
  CHECK(first.hash.k0 == secret.maglev_key().k0);
  CHECK(first.hash.k0 != new_secret().maglev_key().k0);
  CHECK(first.recovering_until_ns > steering::monotonic_ns());
  CHECK(first.recovering_until_ns <= steering::monotonic_ns() + 2'000'000'000);
  const auto kept = steering::wanted_settings(config, secret, first, false);
  CHECK(std::memcmp(&kept, &first, sizeof kept) == 0);
  const auto fresh = steering::wanted_settings(config, secret, first, true);
  CHECK(fresh.boot != first.boot);
  CHECK(fresh.hash.k0 == first.hash.k0);  // connections stay with their dispatcher
}

TEST_CASE("switch tables: of two entries of one flow, which knows more") {
  const auto entry = [](unsigned owner, unsigned generation, bool spoke, bool closing = false) {
    abi::flow_value value{};
    value.owner.is.owner = owner & 1023;
    value.owner.is.generation = generation & abi::GENERATION_MASK;
    value.owner.is.spoke = spoke;
    value.marks.is.generation = generation & abi::GENERATION_MASK;
    value.marks.is.closing = closing;
    return value;
  };
  const auto silent = entry(2, 7, false), spoken = entry(2, 7, true),
             closing = entry(2, 7, true, true), ended = entry(0, 7, false);
  CHECK(steering::is_ahead(spoken, silent));  // the point of no return must survive
  CHECK_FALSE(steering::is_ahead(silent, spoken));
  CHECK(steering::is_ahead(closing, spoken));
  CHECK(steering::is_ahead(ended, closing));
  CHECK_FALSE(steering::is_ahead(spoken, ended));
  CHECK_FALSE(steering::is_ahead(spoken, spoken));
  CHECK(steering::is_ahead(entry(3, 8, false), spoken));
  CHECK_FALSE(steering::is_ahead(closing, entry(3, 8, false)));
}

TEST_CASE("switch: which datapath is tried first") {
  config::Switch self;
  CHECK(steering::preferred(self, {"virtio_net", "mlx5_core"}) == config::Datapath::kXdp);
  CHECK(steering::preferred(self, {"virtio_net", "veth"}) == config::Datapath::kTc);
  self.datapath = config::Datapath::kXdp;
  CHECK(steering::preferred(self, {"veth"}) == config::Datapath::kXdp);
  self.datapath = config::Datapath::kTc;
  CHECK(steering::preferred(self, {"virtio_net"}) == config::Datapath::kTc);
}

TEST_CASE("switch: when an entry is dead") {
  config::Timeouts timeouts;
  timeouts.closing = std::chrono::seconds(2);
  timeouts.idle = std::chrono::seconds(10);
  constexpr std::uint64_t kSecond = 1'000'000'000;
  abi::flow_value flow{};
  flow.owner.is.owner = 101;
  flow.owner.is.generation = 9;
  flow.last_seen_ns = 100 * kSecond;
  CHECK_FALSE(steering::is_dead(flow, timeouts, 110 * kSecond));
  CHECK(steering::is_dead(flow, timeouts, 110 * kSecond + 1));
  flow.marks.is.generation = 9;
  flow.marks.is.closing = 1;
  flow.closing_ns = 101 * kSecond;
  CHECK(steering::is_closing(flow));
  CHECK_FALSE(steering::is_dead(flow, timeouts, 103 * kSecond));
  CHECK(steering::is_dead(flow, timeouts, 103 * kSecond + 1));
  flow.owner.is.generation = 10;  // the marks belong to an older generation
  CHECK_FALSE(steering::is_closing(flow));
  CHECK_FALSE(steering::is_dead(flow, timeouts, 104 * kSecond));
  flow.owner.is.owner = 0;
  CHECK(steering::is_dead(flow, timeouts, 100 * kSecond));
}

TEST_CASE(
    "switch tables: a dispatcher that gets no clients leaves its slots, the others keep theirs") {
  std::string text(kGood);
  const auto first = text.find("[[service]]");
  for (const int id : {2, 3}) {
    const std::string number = std::to_string(id);
    text.insert(first, "[[node]]\nname = \"more" + number + "\"\nid = " + number +
                           "\nrole = \"dispatcher\"\naddress4 = \"10.0.2.10" + number +
                           "\"\naddress6 = \"fd00:2::10" + number + "\"\ninterface = \"eth0\"\n\n");
  }
  const config::Config config = config::parse(text, "t.toml").value();
  const auto all =
      steering::wanted(config, new_secret(), [](const config::Node&) { return 4U; }, {});
  auto less = all;
  steering::apply_choice(less, {{1, 3}, {2}});
  CHECK(less.nodes.at(2).down == 1);
  CHECK(less.nodes.at(1).down == 0);
  CHECK(std::count(less.maglev.begin(), less.maglev.end(), 2U) == 0);
  std::size_t moved = 0, of_others = 0;
  for (std::size_t i = 0; i < all.maglev.size(); ++i) {
    if (all.maglev[i] == less.maglev[i]) continue;
    ++moved;
    of_others += all.maglev[i] != 2 ? 1 : 0;
  }
  const auto share = static_cast<std::size_t>(std::count(all.maglev.begin(), all.maglev.end(), 2U));
  CHECK(moved - of_others == share);
  CHECK(of_others < all.maglev.size() / 20);
  auto again = less;
  steering::apply_choice(again, {{1, 2, 3}, {}});
  CHECK(again.maglev == all.maglev);
  CHECK(again.nodes.at(2).down == 0);
}
