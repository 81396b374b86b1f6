// SPDX-License-Identifier: MIT
// The lab itself: what is up, what is left, what happens when its maker is killed.
#include <signal.h>

#include <fstream>

#include "catch.hpp"
#include "e2e/support.hpp"
#include "lab/generate.hpp"
#include "lab/state.hpp"
#include "lab/teardown.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using nlohmann::json;

namespace {

std::string text_of(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

}  // namespace

TEST_CASE("lab up, status, exec and down by the command line") {
  const RemovedLab lab;
  const Output up = cli(
      {"lab", "up", "--name", lab.name, "--servers", "3", "--dispatchers", "2", "--clients", "2"});
  INFO(up.out << up.error);
  REQUIRE(up.code == 0);

  const Output output = cli({"lab", "status", "--json", "--name", lab.name});
  REQUIRE(output.code == 0);
  const json status = json::parse(output.out);
  CHECK(status.at("name") == lab.name);
  CHECK(status.at("vips") == json({"203.0.113.10", "2001:db8:113::10"}));
  CHECK(status.at("nodes").size() == 8);
  for (const json& node : status.at("nodes")) {
    INFO(node.dump());
    CHECK(std::filesystem::exists("/run/netns/" + node.at("netns").get<std::string>()));
    CHECK(node.at("pids").size() == (node.at("role") == "client" ? 0 : 1));
    if (node.at("name") == "server3")
      CHECK(node.at("addresses") == json({"10.0.3.4", "fd00:3::4"}));
  }

  CHECK(cli({"lab", "exec", "--name", lab.name, "client2", "--", "sh", "-c", "exit 7"}).code == 7);
  CHECK(cli({"lab", "exec", "--name", lab.name, "client2", "--", "/no/such/program"}).code == 127);
  const Output env = cli({"lab", "exec", "--name", lab.name, "server2", "--", "sh", "-c",
                          "echo $TCPMIG_NODE $TCPMIG_CONFIG"});
  CHECK(env.out == "server2 /run/tcpmig/" + lab.name + "/tcpmig.toml\n");
  CHECK(cli({"lab", "exec", "--name", lab.name, "server9", "--", "true"}).code != 0);

  CHECK(cli({"lab", "up", "--name", lab.name}).code != 0);  // it is up
  REQUIRE(cli({"lab", "down", "--name", lab.name}).code == 0);
  CHECK(text_of(lab::leftovers(lab.name)).empty());
  CHECK(cli({"lab", "status", "--name", lab.name}).code != 0);
}

TEST_CASE("clients reach servers' own addresses: plain routing") {
  TestLab lab;
  lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kMiniHttpd, "server2");
  CHECK(run_in(*lab, "client1", {"curl", "-sS", "-m", "5", "-o", "/dev/null", "http://10.0.3.3/1k"})
            .code == 0);
  CHECK(run_in(*lab, "client1",
               {"curl", "-sS", "-m", "5", "-o", "/dev/null", "http://[fd00:3::3]/1k"})
            .code == 0);
}

TEST_CASE("two labs live side by side, and what one leaves is not the other's") {
  TestLab first;
  const lab::Payload file = first.add_file("1k", 1024);
  first.start_server(lab::ServerKind::kNginx, "server1");
  first.start_server(lab::ServerKind::kNginx, "server2");
  {
    TestLab second({.datapath = config::Datapath::kXdp});
    second.add_file("1k", 1024);
    second.start_server(lab::ServerKind::kNginx, "server1");
    second.start_server(lab::ServerKind::kNginx, "server2");
    CHECK(run_in(*second, "client1",
                 {"curl", "-sS", "-f", "-m", "5", "-o", "/dev/null", url("/1k", false)})
              .code == 0);
    CHECK(run_in(*first, "client1",
                 {"curl", "-sS", "-f", "-m", "5", "-o", "/dev/null", url("/1k", false)})
              .code == 0);
  }
  CHECK(run_in(*first, "client1",
               {"curl", "-sS", "-f", "-m", "5", "-o", "/dev/null", url("/1k", true)})
            .code == 0);
}

TEST_CASE("down leaves nothing, also with servers and clients running in the lab") {
  std::string name;
  {
    TestLab lab;
    name = lab->name();
    lab.add_file("1k", 1024);
    lab->spawn("server1", {"sleep", "1000"});
    lab.start_server(lab::ServerKind::kMiniHttpd, "server1");
    CHECK(run_in(*lab, "client1", {"curl", "-sS", "-m", "5", "-o", "/dev/null", url("/1k", false)})
              .code == 0);
    REQUIRE_FALSE(lab::leftovers(name).empty());
  }
  CHECK(text_of(lab::leftovers(name)).empty());
}

TEST_CASE("kill -9 of `lab up` at any point: down cleans, and so does the next up") {
  const RemovedLab lab;
  // how far it has come when it is killed: by what is there to be seen
  const std::vector<std::function<bool()>> points = {
      [&] { return lab::read_state(lab.name).has_value(); },
      [&] { return std::filesystem::exists("/run/netns/tcpmig-" + lab.name + "-fabric"); },
      [&] { return std::filesystem::exists("/run/netns/tcpmig-" + lab.name + "-server2"); },
      [&] {
        const auto state = lab::read_state(lab.name);
        return state && !state->processes.empty();
      },
      [&] { return std::filesystem::exists("/sys/fs/bpf/tcpmig/" + lab.name); },
  };
  for (const bool by_down : {true, false})
    for (const auto& reached : points) {
      const pid_t up = lab::start(
          {.argv = {program().string(), "lab", "up", "--name", lab.name}, .own_session = true});
      CHECK(lab::wait_until(20s, reached, 1ms));
      ::kill(up, SIGKILL);
      lab::wait_for(up);
      if (!by_down) {
        const Output again = cli({"lab", "up", "--name", lab.name});
        INFO(again.error);
        CHECK(again.code == 0);
      }
      CHECK(cli({"lab", "down", "--name", lab.name}).code == 0);
      INFO(text_of(lab::leftovers(lab.name)));
      CHECK(lab::leftovers(lab.name).empty());
    }
}

TEST_CASE("a lab whose roles were killed says so, and started again by hand it is up") {
  TestLab lab({.servers = 1});
  const auto missing = [&] {
    return json::parse(cli({"lab", "status", "--json", "--name", lab->name()}).out)
        .at("not_running");
  };
  CHECK(missing().empty());
  for (const std::string node : {"server1", "switch1", "dispatcher1"}) {
    const auto process = lab::identify(lab.role_pid(node)).value();
    ::kill(process.pid, SIGKILL);
    REQUIRE(lab::wait_until(5s, [&] {
      lab::poll_exit(process.pid);
      return !lab::is_alive(process);
    }));
  }
  CHECK(missing().size() == 3);
  const Output text = cli({"lab", "status", "--name", lab->name()});
  CHECK(text.out.find("NOT RUNNING: the agent of server1;") != std::string::npos);

  for (const std::string node : {"switch1", "server1", "dispatcher1"}) lab.restart_role(node);
  CHECK(missing().empty());
  const Output again = cli({"lab", "up", "--name", lab->name()});
  CHECK(again.code == 4);
  CHECK(again.error.find("is up already") != std::string::npos);
  CHECK(missing().empty());
}

TEST_CASE("sections that a lab makes itself are ignored with a warning") {
  const RemovedLab lab;
  const lab::TemporaryDirectory directory;
  const auto file = directory.path() / "own.toml";
  lab::write_text(file,
                  lab::web_service() +
                      "[[service.route]]\nprefix = \"/\"\npool = \"p\"\n"
                      "[[pool]]\nname = \"p\"\nservers = [{ node = \"server1\", port = 80 }]\n"
                      "[cluster]\ncontrol_port = 99\n");
  const Output output = cli({"lab", "up", "--name", lab.name, "--config", file.string()});
  INFO(output.error);
  CHECK(output.code == 0);
  CHECK(output.error.find("own.toml:14: [cluster] is ignored") != std::string::npos);
}

TEST_CASE("a lab that cannot come up says why and leaves nothing") {
  const RemovedLab lab;
  const lab::TemporaryDirectory directory;
  const auto file = directory.path() / "bad.toml";
  lab::write_text(file,
                  "[[service]]\nname = \"web\"\nid = 1\nvip4 = \"203.0.113.10\"\nport = "
                  "80\n\n[[service.route]]\npool = \"none\"\n");
  const Output output = cli({"lab", "up", "--name", lab.name, "--config", file.string()});
  CHECK(output.code == 2);
  INFO(output.error);
  CHECK(output.error.find("bad.toml:8:") != std::string::npos);
  CHECK(text_of(lab::leftovers(lab.name)).empty());
  const Output missing =
      cli({"lab", "up", "--name", lab.name, "--config", (directory.path() / "none").string()});
  CHECK(missing.code == 2);
  CHECK(missing.error.find("No such file or directory") != std::string::npos);
  CHECK(cli({"lab", "up", "--name", "No Good"}).code == 2);
  CHECK(cli({"lab", "up", "--name", lab.name, "--servers", "0"}).code == 2);
}
