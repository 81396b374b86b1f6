// SPDX-License-Identifier: MIT
// Real clients and real servers over links that lose, double, reorder and delay.
#include <signal.h>

#include "catch.hpp"
#include "e2e/support.hpp"
#include "lab/impair_process.hpp"
#include "lab/plan.hpp"
#include "lab/teardown.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using nlohmann::json;

namespace {

struct Fetch {
  lab::Payload file;
  bool ipv6 = false;
  std::filesystem::path target;
  pid_t child = 0;
  std::optional<int> code;
};

struct Case {
  std::string spec;
  std::vector<std::size_t> sizes;
  std::chrono::seconds limit{60};
  unsigned times = 1;  ///< each size and family
};

lab::Options options_of(const std::string& spec, config::Datapath datapath) {
  lab::Options options{.servers = 2, .datapath = datapath};
  options.impairment = lab::parse_impairment(spec);
  return options;
}

/// All of them at once: most of their time is waiting.
std::vector<Fetch> start_fetches(const TestLab& lab, const std::vector<lab::Payload>& files,
                                 const Case& what) {
  std::vector<Fetch> fetches;
  for (unsigned time = 0; time < what.times; ++time)
    for (const lab::Payload& file : files)
      for (const bool ipv6 : {false, true}) {
        Fetch fetch{file, ipv6, lab.directory() / ("got" + std::to_string(fetches.size())), 0, {}};
        fetch.child = lab->spawn("client1",
                                 {"curl", "-sS", "--fail", "-m", std::to_string(what.limit.count()),
                                  "-o", fetch.target.string(), url("/" + file.name, ipv6)},
                                 lab.directory() / "curl.log");
        fetches.push_back(std::move(fetch));
      }
  return fetches;
}

void check_fetches(const Case& what, config::Datapath datapath) {
  INFO(what.spec << (datapath == config::Datapath::kXdp ? " xdp" : " tc"));
  TestLab lab(options_of(what.spec, datapath));
  if (skipped(lab)) return;
  lab.start_server(lab::ServerKind::kMiniHttpd, "server1");
  lab.start_server(lab::ServerKind::kNginx, "server2");
  std::vector<lab::Payload> files;
  for (const std::size_t size : what.sizes)
    files.push_back(lab.add_file(std::to_string(size), size));
  std::vector<Fetch> fetches = start_fetches(lab, files, what);
  lab::wait_until(what.limit + 10s, [&] {
    bool all = true;
    for (Fetch& fetch : fetches) {
      if (!fetch.code) fetch.code = lab::poll_exit(fetch.child);
      all = all && fetch.code;
    }
    return all;
  });
  for (const Fetch& fetch : fetches) {
    INFO(fetch.file.name << (fetch.ipv6 ? " v6\n" : " v4\n")
                         << read_file(lab.directory() / "curl.log") << lab.logs());
    CHECK(fetch.code == 0);
    CHECK(lab::sha256_of(fetch.target) == fetch.file.sha256);
  }
}

}  // namespace

TEST_CASE("impaired: fetches over long links that lose 1 %") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  check_fetches({.spec = "loss=1%,reorder=2%,duplicate=1%,delay=100ms,jitter=10ms,seed=11",
                 .sizes = {1 << 10, 30 << 10}},
                datapath);
}

TEST_CASE("impaired: fetches over links that lose 5 %") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  check_fetches({.spec = "loss=5%,reorder=5%,duplicate=2%,delay=3ms,jitter=1ms,seed=12",
                 .sizes = {1 << 10, 100 << 10, 1 << 20},
                 .times = 2},
                datapath);
}

/// Minutes; by its name only.
TEST_CASE("impaired: the whole matrix", "[.]") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  const std::string loss = GENERATE("1%", "5%");
  const std::string seed = GENERATE("1", "2", "3");
  check_fetches(
      {.spec = "loss=" + loss + ",reorder=3%,duplicate=2%,delay=100ms,jitter=10ms,seed=" + seed,
       .sizes = {1 << 10, 10 << 10, 100 << 10, 1 << 20},
       .limit = 400s,
       .times = 5},
      datapath);
}

TEST_CASE("impaired: status tells of the links, and of a process that was killed") {
  const RemovedLab lab;
  REQUIRE(cli({"lab", "up", "--name", lab.name, "--impair", "loss=0.5%,links=clients"}).code == 0);
  const auto status = [&] {
    const Output output = cli({"lab", "status", "--json", "--name", lab.name});
    INFO(output.error);
    REQUIRE(output.code == 0);
    return json::parse(output.out);
  };
  const json before = status();
  CHECK(before.at("impairment").at("spec") == "loss=0.5%,seed=1,links=clients");
  CHECK(before.at("impairment").at("links").size() == 1);
  CHECK(before.at("not_running").empty());
  CHECK(cli({"lab", "status", "--name", lab.name}).out.find("loss=0.5%,seed=1,links=clients") !=
        std::string::npos);

  const auto processes = lab::processes_in(lab::netns_name(lab.name, "fabric"));
  REQUIRE(processes.size() == 1);
  ::kill(processes[0].pid, SIGKILL);
  REQUIRE(lab::wait_until(10s, [&] { return !lab::is_alive(processes[0]); }));
  CHECK(status().at("not_running").at(0).at("role") == lab::kImpairRole);
  CHECK(cli({"lab", "status", "--name", lab.name}).out.find("NOT RUNNING: the impair of fabric") !=
        std::string::npos);
  REQUIRE(cli({"lab", "down", "--name", lab.name}).code == 0);
  CHECK(lab::leftovers(lab.name).empty());
}
