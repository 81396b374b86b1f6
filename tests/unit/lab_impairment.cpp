// SPDX-License-Identifier: MIT
// `--impair SPEC` as a value, and what it makes of frames.
#include <stdexcept>

#include "catch.hpp"
#include "lab/impairment.hpp"
#include "lab/plan.hpp"

using namespace tcpmig;
using namespace std::chrono_literals;

namespace {

std::string refusal(const std::string& spec) {
  try {
    lab::parse_impairment(spec);
    return {};
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

std::string plan_refusal(const std::string& spec) {
  try {
    lab::Options options{.servers = 2};
    options.impairment = lab::parse_impairment(spec);
    lab::make_plan(options);
    return {};
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

std::vector<std::string> impaired(const std::string& spec) {
  lab::Options options{.servers = 2, .clients = 2};
  options.impairment = lab::parse_impairment(spec);
  std::vector<std::string> result;
  for (const lab::Port& port : lab::make_plan(options).ports)
    if (port.impaired) result.push_back(port.node);
  return result;
}

}  // namespace

TEST_CASE("impairment: a spec is read, and written as it would be read again") {
  const auto spec = lab::parse_impairment(
      "loss=1%,reorder=2%,duplicate=0.5%,delay=50ms,jitter=500us,seed=7,links=clients+server1");
  CHECK(spec.loss == 0.01);
  CHECK(spec.reorder == 0.02);
  CHECK(spec.duplicate == 0.005);
  CHECK(spec.delay == 50ms);
  CHECK(spec.jitter == 500us);
  CHECK(spec.seed == 7);
  CHECK(spec.links == std::vector<std::string>{"clients", "server1"});
  CHECK(spec.str() ==
        "loss=1%,reorder=2%,duplicate=0.5%,delay=50ms,jitter=0.5ms,seed=7,links=clients+server1");
  CHECK(lab::parse_impairment(spec.str()) == spec);
  CHECK(lab::parse_impairment("delay=1.5s").delay == 1500ms);
  CHECK(lab::parse_impairment("loss=100%").loss == 1);
  CHECK(lab::parse_impairment("seed=3").str() == "seed=3,links=all");
}

TEST_CASE("impairment: what is no spec is refused, with what to write instead") {
  const std::vector<std::pair<std::string, std::string>> wrong{
      {"", "is empty"},
      {"loss=1", "write loss=1%"},
      {"loss=101%", "0% to 100%"},
      {"loss=-1%", "write loss=1%"},
      {"loss=nan%", "write loss=1%"},
      {"loss=1e1%", "write loss=1%"},
      {"loss", "write loss=1%"},
      {"reorder=%", "write reorder=1%"},
      {"delay=50", "write delay=20ms"},
      {"delay=11s", "10s at most"},
      {"jitter=1h,delay=1s", "write jitter=20ms"},
      {"jitter=5ms", "is more than delay"},
      {"seed=-1", "whole number"},
      {"seed=99999999999999999999", "whole number"},
      {"links=", "write all, clients, nodes"},
      {"links=server1+", "write all, clients, nodes"},
      {"links=switch1", "write links=all"},
      {"loss=1%,loss=2%", "loss= is there twice"},
      {"loss=1%,", "is not known"},
      {"rate=1%", "is not known"}};
  for (const auto& [spec, expected] : wrong) {
    INFO(spec << ": " << refusal(spec));
    CHECK(refusal(spec).starts_with("--impair: "));
    CHECK(refusal(spec).find(expected) != std::string::npos);
  }
}

TEST_CASE("impairment: links are all, clients, nodes, or named nodes of this lab") {
  using Names = std::vector<std::string>;
  CHECK(impaired("loss=1%") == Names{"client1", "client2", "dispatcher1", "server1", "server2"});
  CHECK(impaired("links=clients") == Names{"client1", "client2"});
  CHECK(impaired("links=nodes") == Names{"dispatcher1", "server1", "server2"});
  CHECK(impaired("links=client2+server1") == Names{"client2", "server1"});
  CHECK(plan_refusal("links=server3").find("links=server3 is no node of this lab") !=
        std::string::npos);
  CHECK(plan_refusal("links=fabric").find("links=fabric is no node") != std::string::npos);
}

TEST_CASE("impairment: a frame's fate follows from seed, direction and number") {
  const auto spec =
      lab::parse_impairment("loss=10%,reorder=20%,duplicate=5%,delay=50ms,jitter=5ms,seed=7");
  lab::Dice one(spec, "server1 to"), same(spec, "server1 to"), other(spec, "server1 from");
  unsigned lost = 0, doubled = 0, held = 0, different = 0;
  for (int i = 0; i < 100'000; ++i) {
    const lab::Fate fate = one.next(), again = same.next();
    REQUIRE(fate.lost == again.lost);
    REQUIRE(fate.held == again.held);
    REQUIRE(fate.delay == again.delay);
    REQUIRE(fate.delay >= 45ms);
    REQUIRE(fate.delay <= 55ms);
    REQUIRE((fate.held == 0us || (fate.held >= 1ms && fate.held <= 5ms)));
    lost += fate.lost ? 1 : 0;
    doubled += fate.doubled ? 1 : 0;
    held += fate.held > 0us ? 1 : 0;
    different += other.next().lost != fate.lost ? 1 : 0;
  }
  CHECK(lost == Approx(10'000).margin(500));
  CHECK(held == Approx(20'000).margin(700));
  CHECK(doubled == Approx(5'000).margin(400));
  CHECK(different > 10'000);
}
