// SPDX-License-Identifier: MIT
// Repair resume when something ends, or is not what it should be: no client pays.
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include "catch.hpp"
#include "e2e/exec_support.hpp"
#include "lab/generate.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

lab::Options repair(unsigned servers) {
  return {.servers = servers, .resume = config::Resume::kRepair};
}

/// One request over a connection of its own: what the server says of its client is appended.
Response ask(const TestLab& lab, const std::string& path, bool ipv6 = false) {
  HttpClient client(lab.netns("client1"), vip(ipv6));
  client.send(get(path, "Connection: close\r\n"));
  Response response = client.receive();
  response.headers["client"] = client.local().str();
  return response;
}

bool is_migrated(const Response& response) {
  return response.status == 200 && response.headers.at("x-peer") == response.headers.at("client");
}

std::vector<std::string> accept_ways(const std::string& way) {
  return {program_file("accept_ways"), way, "80"};
}

}  // namespace

TEST_CASE("exec: a program that is not under it is relayed to, and found out once") {
  TestLab lab(repair(1), pool_per_server(1));
  {
    const ExecProgram plain(lab, accept_ways("level"), {});
    CHECK(ask(lab, "/server1/").status == 200);
    const auto begun = std::chrono::steady_clock::now();
    const Response second = ask(lab, "/server1/");
    CHECK(second.status == 200);
    CHECK_FALSE(is_migrated(second));
    CHECK(std::chrono::steady_clock::now() - begun < 800ms);  // the first has waited for a second
    CHECK(relays(lab) == 2);
    INFO(lab.logs());
    CHECK(lab.logs().find("start it under `tcpmig exec`") != std::string::npos);
  }
  const ExecProgram under(lab, accept_ways("level"));
  CHECK(lab::wait_until(10s, [&] { return is_migrated(ask(lab, "/server1/")); }, 300ms));
}

TEST_CASE("exec: an agent is killed and comes again") {
  TestLab lab(repair(1), pool_per_server(1));
  const ExecProgram program(lab, accept_ways("edge"));
  HttpClient kept(lab.netns("client1"), vip(false));
  kept.send(get("/server1/"));
  REQUIRE(kept.receive().status == 200);
  const pid_t agent = lab.role_pid("server1");
  REQUIRE(::kill(agent, SIGKILL) == 0);
  kept.send(get("/server1/"));
  CHECK(kept.receive().status == 200);
  CHECK(ask(lab, "/server1/").status == 200);  // relayed
  CHECK(relays(lab) == 1);
  lab.restart_role("server1");
  kept.send(get("/server1/"));
  CHECK(kept.receive().status == 200);
  for (const bool ipv6 : {false, true}) CHECK(is_migrated(ask(lab, "/server1/", ipv6)));
}

TEST_CASE("exec: a program that is stopped or killed costs its connections to another server") {
  TestLab lab(repair(2), pool_per_server(2));
  lab.add_file("1k", 1024);
  std::filesystem::create_directory_symlink(".", lab.documents() / "all");
  lab.start_server(lab::ServerKind::kNginx, "server2");
  ExecProgram program(lab, accept_ways("prefork"));
  const auto all_served = [&](int requests) {
    for (int i = 0; i < requests; ++i)
      if (ask(lab, "/all/1k", i % 2 != 0).status != 200) return false;
    return true;
  };
  CHECK(all_served(6));
  REQUIRE(::kill(-program.pid(), SIGSTOP) == 0);
  CHECK(all_served(4));
  REQUIRE(::kill(-program.pid(), SIGCONT) == 0);
  CHECK(all_served(4));
  program.stop(SIGKILL);
  CHECK(all_served(6));
  CHECK(relays(lab) == 0);
  CHECK(lab::role_number(*lab, "server1", "tickets_untaken") > 0);
}

TEST_CASE("exec: who connects from the address of tickets is served as what he is") {
  TestLab lab(repair(1), pool_per_server(1));
  const ExecProgram program(lab, accept_ways("oneshot"));
  const auto own = config::own_vpa(lab->config(), lab->config().find_node("server1")->id, true);
  const sys::EnterNetns inside(lab.netns("server1"));
  const sys::UniqueFd fd(sys::check("socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  const auto [from, length] = sys::Endpoint{own, 0}.to_sockaddr();
  REQUIRE(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&from), length) == 0);
  const auto [to, to_length] =
      sys::Endpoint{lab->node("server1").addresses.at(0), 80}.to_sockaddr();
  REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), to_length) == 0);
  const std::string request = get("/server1/");
  REQUIRE(::send(fd.get(), request.data(), request.size(), 0) ==
          static_cast<ssize_t>(request.size()));
  const timeval patience{5, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  std::string answer;
  char part[512];
  while (answer.find("oneshot ") == std::string::npos) {
    const ssize_t got = ::recv(fd.get(), part, sizeof part, 0);
    REQUIRE(got > 0);
    answer.append(part, static_cast<std::size_t>(got));
  }
  CHECK(answer.find("oneshot " + own.str() + ":") != std::string::npos);
  CHECK(lab::role_number(*lab, "server1", "strangers") == 1);
}

TEST_CASE("exec --inetd: a program for each connection, migrated or not") {
  TestLab lab(repair(1), pool_per_server(1));
  const auto script = lab.directory() / "answer";
  lab::write_text(
      script,
      "#!/bin/sh\nread -r line\nbody=\"$REMOTE_ADDR:$REMOTE_PORT $PROTO $(id -un)\"\n"
      "printf 'HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s' ${#body} \"$body\"\n");
  std::filesystem::permissions(script, std::filesystem::perms(0755));
  const ExecProgram program(lab, {"/bin/sh", script},
                            {"exec", "--inetd", "--user", "www-data", "--children", "3", "--"});
  INFO(program.output() << lab.logs());
  for (int i = 0; i < 12; ++i) {
    HttpClient client(
        lab.netns("client1"),
        i % 3 == 2 ? sys::Endpoint{lab->node("server1").addresses.at(0), 80} : vip(i % 3 == 1));
    client.send(get("/server1/"));
    const sys::Endpoint own = client.local();
    CHECK(client.receive().body ==
          own.address.str() + ":" + std::to_string(own.port) + " TCP www-data");
  }
  CHECK(lab::role_number(*lab, "server1", "handed_over") == 8);
  CHECK(relays(lab) == 0);
}

TEST_CASE("handoff: a program that is stopped or killed costs its connections to another server") {
  const lab::TemporaryDirectory directory;
  std::string config = lab::web_service() +
                       "[[service.route]]\nprefix = \"/\"\npool = \"fd\"\n[[pool]]\nname = \"fd\"\n"
                       "fallback = \"refuse\"\nservers = [";
  const auto socket = [&](int number) {
    return (directory.path() / (std::to_string(number) + ".sock")).string();
  };
  for (int i = 1; i <= 2; ++i)
    config += "{ node = \"server" + std::to_string(i) + "\", handoff = \"" + socket(i) + "\" },";
  TestLab lab({.servers = 2}, config + "]\n");
  const auto start = [&](int number) {
    const std::string node = "server" + std::to_string(number);
    const pid_t pid = lab->spawn(
        node, {program().string(), "lab", "fd-server", "--socket", socket(number), "--as", node},
        lab.directory() / (node + ".log"));
    REQUIRE(lab::wait_until(20s, [&] { return std::filesystem::exists(socket(number)); }));
    return pid;
  };
  const pid_t one = start(1), other = start(2);
  const auto servers_of = [&](int requests) {
    std::map<std::string, int> seen;
    for (int i = 0; i < requests; ++i) ++seen[ask(lab, "/", i % 2 != 0).headers["server"]];
    return seen;
  };
  CHECK(servers_of(8).size() == 2);
  REQUIRE(::kill(one, SIGSTOP) == 0);
  CHECK(servers_of(4) == std::map<std::string, int>{{"server2", 4}});
  REQUIRE(::kill(one, SIGCONT) == 0);
  CHECK(servers_of(8).size() == 2);
  REQUIRE(::kill(one, SIGKILL) == 0);
  lab::wait_for(one);
  CHECK(servers_of(4) == std::map<std::string, int>{{"server2", 4}});
  lab::terminate({lab::identify(other).value()}, 3s);
}

TEST_CASE("exec: what cannot work is refused with a word on what to do") {
  TestLab lab(repair(1), pool_per_server(1));
  const auto exec = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {program().string(), "exec"});
    return run_in(*lab, "server1", words, 20s);
  };
  CHECK(exec({}).error.find("no program: write `tcpmig exec -- PROGRAM") != std::string::npos);
  CHECK(exec({"--", "no-such-program"}).code == 5);
  const auto text = lab.directory() / "text";
  lab::write_text(text, "nothing that runs");
  std::filesystem::permissions(text, std::filesystem::perms(0755));
  const Output refused = exec({"--", text});
  CHECK(refused.code == 2);
  CHECK(refused.error.find("is neither an ELF program nor a script") != std::string::npos);
  if (std::filesystem::exists("/usr/bin/busybox-static"))
    CHECK(exec({"--", "/usr/bin/busybox-static"}).error.find("statically linked") !=
          std::string::npos);
  CHECK(exec({"--inetd", "--", "cat"}).error.find("say --user") != std::string::npos);
  CHECK(exec({"--port", "81", "--", "cat"}).code == 2);
  CHECK(exec({"--inetd", "--user", "nobody-of-that-name", "--", "cat"}).code == 5);
  CHECK(exec({"--", "sh", "-c", "exit 7"}).code == 7);
  CHECK(run_in(*lab, "dispatcher1", {program().string(), "exec", "--", "true"}, 20s).code == 2);
}
