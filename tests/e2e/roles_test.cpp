// SPDX-License-Identifier: MIT
// The roles by the command line: what `down` gives back after kill -9, what `status` says meanwhile,
// and what is said when something is missing.
#include <signal.h>
#include <sys/socket.h>

#include "catch.hpp"
#include "conn/cgroup.hpp"
#include "control/status_socket.hpp"
#include "e2e/support.hpp"
#include "lab/plan.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using nlohmann::json;

namespace {

void end_role(const TestLab& lab, const std::string& node, int signal) {
  const auto process = lab::identify(lab.role_pid(node)).value();
  ::kill(process.pid, signal);
  REQUIRE(lab::wait_until(10s, [&] {
    lab::poll_exit(process.pid);
    return !lab::is_alive(process);
  }));
}

Output tcpmig_in(const TestLab& lab, const std::string& node, std::vector<std::string> words) {
  words.insert(words.begin(), program().string());
  return run_in(*lab, node, words, 30s);
}

bool says(const std::string& text, const std::string& words) {
  INFO(text);
  return text.find(words) != std::string::npos;
}

/// The node's rules and its routes beside the ordinary ones, as text.
std::string network_of(const TestLab& lab, const std::string& node) {
  std::string text;
  for (const char* family : {"-4", "-6"})
    for (const std::vector<std::string>& what :
         {std::vector<std::string>{"rule"}, {"route", "show", "table", "all", "proto", "116"}}) {
      std::vector<std::string> words{"ip", family};
      words.insert(words.end(), what.begin(), what.end());
      text += run_in(*lab, node, words).out;
    }
  return text;
}

bool has_cgroup(const TestLab& lab, const std::string& node) {
  return !conn::find_cgroups([&](const std::string& name) {
            return name == "tcpmig-" + lab->name() + "-" + node;
          }).empty();
}

sys::UniqueFd take_port(const TestLab& lab, const std::string& node) {
  const auto [address, length] =
      sys::Endpoint{lab->node(node).addresses.at(0), lab->config().control_port}.to_sockaddr();
  const sys::EnterNetns inside(lab.netns(node));
  sys::UniqueFd fd(sys::check("socket", ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  sys::check("bind", ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length));
  return fd;
}

}  // namespace

TEST_CASE("dispatcher down gives back what a killed dispatcher has left") {
  TestLab lab({.servers = 1});
  const std::string node = "dispatcher1";
  const Output running = tcpmig_in(lab, node, {"dispatcher", "down"});
  CHECK(running.code == 4);
  CHECK(says(running.error, "is already running"));
  CHECK(says(network_of(lab, node), "100.64."));

  end_role(lab, node, SIGKILL);
  CHECK(has_cgroup(lab, node));
  const Output status = tcpmig_in(lab, node, {"status"});
  CHECK(status.code == 0);
  CHECK(says(status.out, "not running"));
  CHECK(says(status.out, "tcpmig dispatcher down"));

  const Output down = tcpmig_in(lab, node, {"dispatcher", "down", "--json"});
  INFO(down.error);
  REQUIRE(down.code == 0);
  CHECK(json::parse(down.out) == json({{"role", "dispatcher"}, {"node", node}, {"up", false}}));
  CHECK_FALSE(says(network_of(lab, node), "100.64."));
  CHECK_FALSE(says(network_of(lab, node), "fd7c:"));
  CHECK_FALSE(has_cgroup(lab, node));
  CHECK_FALSE(std::filesystem::exists(lab->config().paths(node).run()));
  CHECK(tcpmig_in(lab, node, {"status"}).code == 5);
  CHECK(tcpmig_in(lab, node, {"dispatcher", "down"}).code == 0);  // again
  lab.restart_role(node);
}

TEST_CASE("agent down and switch up and down by the command line leave nothing") {
  TestLab lab({.servers = 1});
  for (const std::string node : {"server1", "switch1"}) end_role(lab, node, SIGKILL);
  CHECK(says(tcpmig_in(lab, "server1", {"status"}).out, "tcpmig agent down"));

  const Output agent = tcpmig_in(lab, "server1", {"agent", "down", "--json"});
  INFO(agent.error);
  REQUIRE(agent.code == 0);
  CHECK(json::parse(agent.out) == json({{"role", "agent"}, {"node", "server1"}, {"up", false}}));
  CHECK_FALSE(std::filesystem::exists(lab->config().paths("server1").run()));
  CHECK_FALSE(std::filesystem::exists(lab->config().paths("server1").pins("agent").parent_path()));
  CHECK(tcpmig_in(lab, "server1", {"status"}).code == 5);

  const Output up = tcpmig_in(lab, "switch1", {"switch", "up", "--json"});
  INFO(up.error);
  REQUIRE(up.code == 0);
  CHECK(json::parse(up.out).at("up") == true);
  CHECK(json::parse(up.out).at("attached").size() == 3);
  CHECK(
      says(tcpmig_in(lab, "switch1", {"switch", "up"}).out, "switch switch1 is up: eth0 (clients"));
  const Output down = tcpmig_in(lab, "switch1", {"switch", "down", "--json"});
  REQUIRE(down.code == 0);
  CHECK(json::parse(down.out).at("up") == false);
  CHECK(says(tcpmig_in(lab, "switch1", {"switch", "down"}).out, "switch switch1 is down"));
  CHECK_FALSE(std::filesystem::exists(lab->config().paths("switch1").run()));
  CHECK_FALSE(std::filesystem::exists(lab->config().paths("switch1").pins("switch").parent_path()));
}

TEST_CASE("agent check: text and JSON, with and without rights") {
  TestLab lab({.servers = 1});
  const Output text = tcpmig_in(lab, "server1", {"agent", "check"});
  CHECK(text.code == (says(text.out, "MISSING") ? 3 : 0));
  CHECK(says(text.out, "tcp_syncookies"));
  const Output output = tcpmig_in(lab, "server1", {"agent", "check", "--json"});
  const json document = json::parse(output.out);
  CHECK(document.at("node") == "server1");
  CHECK(document.at("ok") == (output.code == 0));
  for (const char* key : {"name", "ok", "detail", "cost", "fix"})
    CHECK(document.at("findings").at(0).contains(key));

  std::filesystem::copy_file(lab::Paths(lab->name()).config, lab.directory() / "open.toml");
  const Output without =
      run_in(*lab, "server1",
             {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program().string(),
              "agent", "check", "--config", (lab.directory() / "open.toml").string()});
  INFO(without.out << without.error);
  CHECK(without.code == 3);
  CHECK(says(without.out, "cannot be told without the rights above"));
  CHECK_FALSE(says(without.out, "use Linux 6.9"));
}

TEST_CASE("a lab without the right to enter namespaces") {
  const Output output =
      run({"setpriv", "--bounding-set=-sys_admin", program().string(), "lab", "status"}, 10s);
  CHECK(output.code == 3);
  CHECK(says(output.error, "missing: CAP_SYS_ADMIN"));
}

TEST_CASE("a control port that is taken, a kernel without BTF, a machine without TUN") {
  TestLab lab({.servers = 1});
  for (const auto& [node, role] :
       {std::pair("server1", "agent"), std::pair("dispatcher1", "dispatcher")}) {
    end_role(lab, node, SIGTERM);
    {
      const sys::UniqueFd port = take_port(lab, node);
      const Output taken = tcpmig_in(lab, node, {role, "run"});
      CHECK(taken.code == 1);
      CHECK(says(taken.error, ":7420"));
      CHECK(says(taken.error, "another program"));
    }
    const Output no_tun =
        run_in(*lab, node,
               {"unshare", "-m", "sh", "-c",
                "mount -t tmpfs none /dev/net && exec \"$0\" \"$1\" run", program().string(), role},
               20s);
    INFO(no_tun.error);
    CHECK(no_tun.code == 3);
    CHECK(says(no_tun.error, "no /dev/net/tun"));
    lab.restart_role(node);
  }
  const std::vector<std::string> without_btf{
      "unshare",
      "-m",
      "sh",
      "-c",
      "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" \"$@\"",
      program().string()};
  std::vector<std::string> words = without_btf;
  words.insert(words.end(), {"agent", "check"});
  const Output check = run_in(*lab, "server1", words);
  CHECK(check.code == 3);
  CHECK(says(check.out, "no /sys/kernel/btf/vmlinux"));

  end_role(lab, "dispatcher1", SIGTERM);
  words = without_btf;
  words.insert(words.end(), {"dispatcher", "run"});
  lab->spawn("dispatcher1", words, lab.directory() / "dispatcher.log");
  const auto socket = lab->config().paths("dispatcher1").socket("dispatcher");
  CHECK(lab::wait_until(10s, [&] { return control::query_status(socket).has_value(); }));
  const json status = lab::role_status(*lab, "dispatcher1");
  CHECK(status.at("one_call_dump") == false);
  CHECK(says(status.at("warnings").dump(), "no type information"));
}

TEST_CASE("what does not fit this machine ends with 2") {
  TestLab lab({.servers = 1});
  end_role(lab, "server1", SIGTERM);
  std::string text = read_file(lab::Paths(lab->name()).config);
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    changed.replace(changed.rfind(from), from.size(), to);
    const auto file = lab.directory() / "other.toml";
    lab::write_text(file, changed);
    return file.string();
  };
  const Output interface = tcpmig_in(
      lab, "server1",
      {"agent", "run", "--config", replaced("interface = \"eth0\"", "interface = \"eth7\"")});
  CHECK(interface.code == 2);
  CHECK(says(interface.error, "there is no interface eth7"));
  const std::string secret = lab::Paths(lab->name()).secret.string();
  const Output missing = tcpmig_in(
      lab, "server1", {"agent", "run", "--config", replaced(secret, secret + "-not-there")});
  CHECK(missing.code == 2);
  CHECK(says(missing.error, "tcpmig secret generate"));
}

TEST_CASE("the cluster's key is changed while it serves: add, use, drop") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(lab::ServerKind::kNginx, "server1");
  const std::string secret = lab::Paths(lab->name()).secret.string();
  const auto fetches = [&] {
    HttpClient client(lab.netns("client1"), vip(false));
    client.send(get("/1k", "Connection: close\r\n"));
    return lab::sha256_of_bytes(client.receive().body) == file.sha256;
  };
  for (const std::string step : {"add", "use", "drop"}) {
    const Output done = cli({"secret", "rotate", secret, step});
    INFO(done.out << done.error);
    REQUIRE(done.code == 0);
    for (const std::string node : {"switch1", "server1", "dispatcher1"}) {
      INFO(step << ", " << node << "\n" << lab.logs());
      end_role(lab, node, SIGTERM);
      lab.restart_role(node);
      CHECK(lab::wait_until(5s, fetches));
    }
  }
  CHECK(lab::role_number(*lab, "switch1", "drop_bad_tag") == 0);
  CHECK(cli({"secret", "rotate", secret, "drop"}).code == 2);
}
