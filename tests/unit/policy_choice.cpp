// SPDX-License-Identifier: MIT
#include <map>
#include <string>

#include "catch.hpp"
#include "policy/policy.hpp"

using namespace tcpmig;

namespace {

http::RequestHead request(const std::string& method, const std::string& host,
                          const std::string& path) {
  http::RequestHead head;
  head.method = method;
  head.host = host;
  head.path = path;
  head.target = path;
  head.fields = {{"Host", host}, {"X-Plan", "gold"}};
  return head;
}

config::Pool pool_of(std::size_t servers,
                     config::Algorithm algorithm = config::Algorithm::kRoundRobin) {
  config::Pool pool;
  pool.algorithm = algorithm;
  for (std::size_t i = 0; i < servers; ++i)
    pool.servers.push_back(
        {"server" + std::to_string(i + 1), static_cast<config::NodeId>(i + 1), 80, {}});
  return pool;
}

policy::Load alive(config::NodeId) { return {true, 0}; }

}  // namespace

TEST_CASE("policy: the first route whose conditions all hold wins") {
  config::Service service;
  const auto add = [&](auto&& set) {
    config::Route route;
    set(route);
    service.routes.push_back(route);
  };
  add([](auto& r) { r.host = "*.img.example.org", r.pool = "images"; });
  add([](auto& r) { r.prefix = "/api", r.method = "POST", r.pool = "writes"; });
  add([](auto& r) { r.prefix = "/api", r.pool = "reads"; });
  add([](auto& r) { r.path = "/exact", r.pool = "exact"; });
  add([](auto& r) {
    r.header = std::pair{"x-plan", "gold"}, r.host = "vip.example.org", r.pool = "gold";
  });
  const auto pool = [&](const http::RequestHead& head) {
    const config::Route* route = policy::match(service, head);
    return route == nullptr ? std::string("none") : route->pool;
  };
  CHECK(pool(request("GET", "a.b.IMG.example.org", "/")) == "images");
  CHECK(pool(request("GET", "img.example.org", "/")) == "none");
  CHECK(pool(request("GET", "ximg.example.org", "/")) == "none");
  CHECK(pool(request("POST", "a", "/api/x")) == "writes");
  CHECK(pool(request("GET", "a", "/api")) == "reads");
  CHECK(pool(request("GET", "a", "/apix")) == "none");
  CHECK(pool(request("GET", "a", "/exact")) == "exact");
  CHECK(pool(request("GET", "a", "/exact/no")) == "none");
  CHECK(pool(request("GET", "VIP.example.org", "/")) == "gold");
}

TEST_CASE("policy: round robin takes turns and skips the excluded") {
  const config::Pool pool = pool_of(3);
  for (std::uint64_t turn = 0; turn < 9; ++turn)
    CHECK(policy::choose(pool, turn, {}, alive) == turn % 3);
  CHECK(policy::choose(pool, 1, {1}, alive) == 2);
  CHECK(policy::choose(pool, 1, {1, 2}, alive) == 0);
  CHECK(policy::choose(pool, 1, {0, 1, 2}, alive) == std::nullopt);
}

TEST_CASE("policy: a silent server comes last, but comes") {
  const config::Pool pool = pool_of(2);
  const auto second_down = [](config::NodeId node) { return policy::Load{node != 2, 0}; };
  CHECK(policy::choose(pool, 1, {}, second_down) == 0);
  CHECK(policy::choose(pool, 1, {0}, second_down) == 1);
}

TEST_CASE(
    "policy: servers that nothing has been heard of take no transfer where the pool may relay") {
  const auto second_silent = [](config::NodeId node) {
    return policy::Load{.alive = node != 2, .connections = 0, .silent = node == 2};
  };
  config::Pool pool = pool_of(3);
  CHECK(policy::without_agent(pool, second_silent) == std::set<std::size_t>{1});
  CHECK(policy::without_agent(pool, alive).empty());
  pool.relay_fallback = false;  // then trying is better than a 503
  CHECK(policy::without_agent(pool, second_silent).empty());
  pool.relay_fallback = true;
  pool.relay = true;  // takes no transfer anyway, and needs no agent
  CHECK(policy::without_agent(pool, second_silent).empty());
}

TEST_CASE("policy: least connections, turns among equals") {
  const config::Pool pool = pool_of(3, config::Algorithm::kLeastConnections);
  std::map<config::NodeId, std::uint32_t> connections{{1, 5}, {2, 3}, {3, 3}};
  const auto load = [&](config::NodeId node) { return policy::Load{true, connections.at(node)}; };
  CHECK(policy::choose(pool, 0, {}, load) == 1);
  CHECK(policy::choose(pool, 2, {}, load) == 2);
  CHECK(policy::choose(pool, 0, {1, 2}, load) == 0);
}
