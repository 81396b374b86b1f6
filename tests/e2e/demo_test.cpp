// SPDX-License-Identifier: MIT
// `tcpmig lab demo`, as a newcomer types it: what it shows is true, and it leaves nothing.
#include <signal.h>

#include "catch.hpp"
#include "e2e/support.hpp"
#include "lab/plan.hpp"
#include "lab/teardown.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using nlohmann::json;

namespace {

Output demo(const std::string& name, std::vector<std::string> more) {
  std::vector<std::string> words{"lab", "demo", "--name", name, "--requests", "20"};
  words.insert(words.end(), more.begin(), more.end());
  return cli(words, 300s);
}

bool says(const Output& output, const std::string& words) {
  return output.out.find(words) != std::string::npos;
}

}  // namespace

TEST_CASE("lab demo: every check passes, and nothing is left") {
  const RemovedLab lab;
  const Output output = demo(lab.name, {});
  INFO(output.out << output.error);
  CHECK(output.code == 0);
  CHECK(says(output, "\nOK: "));
  CHECK(lab::leftovers(lab.name).empty());
}

TEST_CASE("lab demo --repair: every check passes, and nothing is left") {
  const RemovedLab lab;
  const Output output = demo(lab.name, {"--repair"});
  INFO(output.out << output.error);
  CHECK(output.code == 0);
  CHECK(says(output, "Repair resume"));
  CHECK(says(output, "\nOK: "));
  CHECK(lab::leftovers(lab.name).empty());
}

TEST_CASE("lab demo --json --keep: one document, and servers that go on serving") {
  const RemovedLab lab;
  const Output output = demo(lab.name, {"--json", "--keep", "--servers", "nginx,mini_httpd"});
  INFO(output.out << output.error);
  REQUIRE(output.code == 0);
  const json document = json::parse(output.out);
  CHECK(document.at("ok") == true);
  CHECK(document.at("failed") == 0);
  CHECK(document.at("checks").size() == document.at("passed"));
  const bool migrates = document.contains("fetches");
  if (migrates) {
    CHECK(document.at("fetches").size() == 12);
    for (const char* phase : {"frozen", "sent", "switch_committed", "resumed", "confirmed"})
      CHECK(document.at("phases_since_head").at(phase).at("p50_ns") > 0);
    CHECK(document.at("client_connect_to_last_byte").at("through_the_service").at("p50_ns") > 0);
    CHECK(document.at("path").at(0).at("packets_dispatcher") == 0);
  }
  for (int request = 0; request < 4; ++request) {
    const Output fetched = cli({"lab", "exec", "--name", lab.name, "client1", "--", "curl", "-sSf",
                                "-m", "5", "-o", "/dev/null", url("/1k.bin", false)});
    INFO(fetched.error);
    CHECK(fetched.code == 0);
  }
  CHECK(cli({"lab", "down", "--name", lab.name}).code == 0);
  CHECK(lab::leftovers(lab.name).empty());
}

TEST_CASE("kill -9 of a demo: `lab down` removes its files and servers, too") {
  const RemovedLab lab;
  const pid_t child = lab::start(
      {.argv = {program().string(), "lab", "demo", "--name", lab.name}, .own_session = true});
  const auto files = lab::Paths(lab.name).run / "demo" / "www" / "100m.bin";
  CHECK(lab::wait_until(60s, [&] { return std::filesystem::exists(files); }));
  ::kill(child, SIGKILL);
  lab::wait_for(child);
  CHECK(cli({"lab", "down", "--name", lab.name}).code == 0);
  CHECK(lab::leftovers(lab.name).empty());
}

TEST_CASE("a demo does not touch a lab of its name that is up") {
  TestLab lab({.servers = 1});
  const Output output = demo(lab->name(), {});
  INFO(output.out << output.error);
  CHECK(output.code == 4);
  CHECK(output.error.find("is up already") != std::string::npos);
  for (const std::string node : {"switch1", "dispatcher1", "server1"})
    CHECK(lab::role_status(*lab, node).at("ready") == true);
}
