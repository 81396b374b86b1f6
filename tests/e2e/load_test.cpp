// SPDX-License-Identifier: MIT
// 20,000 requests, 64 at a time: none fails, no RST that the same run directly against the server
// does not have, all entries go.
#include <iostream>
#include <map>

#include "catch.hpp"
#include "e2e/rst_counter.hpp"
#include "e2e/support.hpp"
#include "lab/load.hpp"
#include "lab/roles.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

struct Measured {
  lab::LoadResult result;
  std::uint64_t resets = 0;
};

Measured measure(const TestLab& lab, const sys::Endpoint& target, unsigned requests) {
  lab::LoadPlan plan{.netns = lab.netns("client1"),
                     .target = target,
                     .items = {},
                     .requests = requests,
                     .parallel = 64};
  for (const auto& [name, weight] :
       {std::pair("1k", 70U), std::pair("64k", 25U), std::pair("1m", 5U)})
    plan.items.push_back({std::string("/") + name, read_file(lab.documents() / name), weight});
  plan.deadline = 300s;
  RstCounter resets(plan.netns);
  Measured measured{lab::run_load(plan), 0};
  measured.resets = resets.count();
  return measured;
}

std::string in_words(const char* what, const Measured& measured) {
  const auto& result = measured.result;
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(result.took).count();
  const auto microseconds = [&](double p) {
    return std::to_string(result.percentile(p).count() / 1000);
  };
  std::string text = std::string(what) + ": " + std::to_string(result.completed) + " ok, " +
                     std::to_string(result.failed) + " failed, " + std::to_string(measured.resets) +
                     " RST, " + std::to_string(milliseconds) + " ms, p50 " + microseconds(50) +
                     " us, p99 " + microseconds(99) + " us\n";
  for (const std::string& failure : result.failures) text += "  " + failure + "\n";
  return text;
}

std::uint64_t flow_entries(const TestLab& lab) {
  return lab::role_status(*lab, "switch1").at("flows").at("entries").get<std::uint64_t>();
}

/// Open descriptors of the role of a node. What a role opens lazily, once, is spared.
constexpr std::size_t kSpare = 4;
std::size_t descriptors(const TestLab& lab, const std::string& node) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(lab.role_pid(node)) + "/fd"))
    ++count;
  return count;
}

void check_load(const lab::Options& options, bool ipv6, unsigned requests) {
  TestLab lab(options);
  if (skipped(lab)) return;
  for (const auto& [name, size] :
       {std::pair("1k", 1UL << 10), std::pair("64k", 64UL << 10), std::pair("1m", 1UL << 20)})
    lab.add_file(name, size);
  for (const std::string node : {"server1", "server2"})
    lab.start_server(lab::ServerKind::kNginx, node);

  // The first connection of each server has its agent open what repair resume needs: six descriptors, once.
  for (const std::string node : {"server1", "server2"}) {
    HttpClient first(lab.netns("client1"), vip(ipv6));
    first.send(get("/" + node + "/1k", "Connection: close\r\n"));
    REQUIRE(first.receive().status == 200);
  }
  REQUIRE(lab::wait_until(15s, [&] { return flow_entries(lab) == 0; }, 100ms));
  std::map<std::string, std::size_t> before;
  for (const lab::Node& node : lab->nodes())
    if (!lab::role_of(node).empty()) before[node.name] = descriptors(lab, node.name);
  const auto direct = measure(lab, {lab->node("server1").addresses.at(ipv6 ? 1 : 0), 80}, requests);
  const auto through = measure(lab, vip(ipv6), requests);
  std::cout << in_words("direct ", direct) << in_words("through", through);
  INFO(in_words("through", through) << lab::role_status(*lab, "dispatcher1").dump(2)
                                    << lab::role_status(*lab, "switch1").dump(2) << lab.logs());
  CHECK(direct.result.failed == 0);
  CHECK(through.result.completed == requests);
  CHECK(through.result.failed == 0);
  CHECK(through.resets <= direct.resets);
  CHECK(lab::role_number(*lab, "switch1", "committed") >= requests);
  CHECK(lab::wait_until(15s, [&] { return flow_entries(lab) == 0; }, 100ms));
  for (const auto& [node, count] : before) {
    INFO(node << ": " << count << " descriptors before, " << descriptors(lab, node) << " after");
    CHECK(lab::wait_until(10s, [&] { return descriptors(lab, node) <= count + kSpare; }, 100ms));
  }
}

}  // namespace

TEST_CASE("20,000 requests, 64 at a time, v4, tc") {
  check_load({.servers = 2, .datapath = config::Datapath::kTc}, false, 20'000);
}
TEST_CASE("10,000 requests, 64 at a time, v6, tc, two dispatchers") {
  check_load({.servers = 2, .dispatchers = 2, .datapath = config::Datapath::kTc}, true, 10'000);
}
TEST_CASE("10,000 requests, 64 at a time, v4, xdp") {
  check_load({.servers = 2, .datapath = config::Datapath::kXdp}, false, 10'000);
}
