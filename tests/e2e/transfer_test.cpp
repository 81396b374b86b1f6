// SPDX-License-Identifier: MIT
// Stock servers behind the VIP, stock clients before it: every byte arrives, and the server has
// logged the real client.
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <iostream>

#include "catch.hpp"
#include "e2e/support.hpp"
#include "lab/generate.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using lab::ServerKind;

namespace {

struct Fetch {
  std::string client;  ///< curl, wget
  bool ipv6 = false;
  std::string node;
  lab::Payload file;
};

std::vector<std::string> command_line(const Fetch& fetch, const std::string& address,
                                      const std::string& target) {
  if (fetch.client == "curl") return {"curl", "-sS", "--fail", "-m", "50", "-o", target, address};
  return {"wget", "-q", "--tries=1", "--timeout=50", "-O", target, address};
}

/// A request may be logged only when its connection has ended, and lighttpd writes its log in every
/// fourth second, if it wakes up in that one (mod_accesslog).
std::optional<lab::LogEntry> wait_for_entry(const lab::StockServer& server, std::size_t known,
                                            const std::string& path) {
  std::optional<lab::LogEntry> found;
  lab::wait_until(20s, [&] {
    const auto log = server.log();
    for (std::size_t i = known; i < log.size(); ++i)
      if (log[i].path == path) found = log[i];
    return found.has_value();
  });
  return found;
}

void check_fetch(const TestLab& lab, const Fetch& fetch) {
  const std::string path = "/" + fetch.node + "/" + fetch.file.name;
  const std::string target = lab.directory() / "fetched";
  const auto& server = lab.server(fetch.node);
  INFO(to_string(server.kind()) << " " << fetch.client << (fetch.ipv6 ? " v6 " : " v4 ") << path);
  const std::size_t known = server.log().size();

  const Output output = run_in(*lab, "client1", command_line(fetch, url(path, fetch.ipv6), target));
  INFO(output.error << lab.logs());
  REQUIRE(output.code == 0);
  CHECK(lab::sha256_of(target) == fetch.file.sha256);

  const auto entry = wait_for_entry(server, known, path);
  REQUIRE(entry);
  CHECK(entry->client == lab->node("client1").addresses.at(fetch.ipv6 ? 1 : 0));
}

void check_all_servers(config::Datapath datapath) {
  TestLab lab({.servers = 5, .datapath = datapath}, pool_per_server(5));
  if (skipped(lab)) return;
  const std::vector<lab::Payload> files = {lab.add_file("1k", 1024), lab.add_file("1m", 1 << 20)};
  const lab::Payload large = lab.add_file("100m", 100 << 20);
  unsigned number = 0;
  for (const ServerKind kind : {ServerKind::kMiniHttpd, ServerKind::kNginx, ServerKind::kLighttpd,
                                ServerKind::kPython, ServerKind::kNode}) {
    const std::string node = "server" + std::to_string(++number);
    lab.start_server(kind, node);
    for (const bool ipv6 : {false, true}) {
      for (const std::string client : {"wget", "curl"})
        for (const lab::Payload& file : files) check_fetch(lab, {client, ipv6, node, file});
      check_fetch(lab, {ipv6 ? "curl" : "wget", ipv6, node, large});
    }
  }
}

bool is_listening(const std::filesystem::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.string().copy(address.sun_path, sizeof address.sun_path - 1);
  const sys::UniqueFd fd(sys::check("socket", ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)));
  return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

}  // namespace

TEST_CASE("stock servers and clients, 1 KB to 100 MB, both families, tc") {
  check_all_servers(config::Datapath::kTc);
}

TEST_CASE("stock servers and clients, 1 KB to 100 MB, both families, xdp") {
  check_all_servers(config::Datapath::kXdp);
}

TEST_CASE("keep-alive: the first request is migrated, a hundred go straight to the server") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  TestLab lab({.servers = 1, .datapath = datapath});
  if (skipped(lab)) return;
  const lab::Payload file = lab.add_file("1k", 1024);
  lab.start_server(ServerKind::kNginx, "server1");
  for (const bool ipv6 : {false, true}) {
    HttpClient client(lab.netns("client1"), vip(ipv6));
    client.send(get("/1k"));
    REQUIRE(client.receive().status == 200);
    // the source keeps its frozen socket until it is told; a late acknowledgement of its kernel may
    // still be on its way
    const auto committed = lab::role_number(*lab, "switch1", "committed");
    CHECK(committed == (ipv6 ? 2 : 1));
    const auto before = lab::node_traffic(*lab, "dispatcher1");
    const auto server_before = lab::node_traffic(*lab, "server1");
    for (int request = 2; request <= 100; ++request) {
      client.send(get("/1k"));
      const Response response = client.receive();
      REQUIRE(response.status == 200);
      REQUIRE(lab::sha256_of_bytes(response.body) == file.sha256);
    }
    CHECK(lab::node_traffic(*lab, "dispatcher1") == before);
    CHECK(lab::role_number(*lab, "switch1", "committed") == committed);
    CHECK(lab::node_traffic(*lab, "server1").packets_in >= server_before.packets_in + 99);
    for (const lab::LogEntry& entry : lab.server("server1").log())
      CHECK(entry.client == (entry.client.is_ipv6() ? lab->node("client1").addresses.at(1)
                                                    : lab->node("client1").addresses.at(0)));
  }
  CHECK(lab.server("server1").log().size() == 200);
}

TEST_CASE("an MPTCP client falls back to plain TCP and gets its answer") {
  TestLab lab({.servers = 1});
  if (skipped(lab)) return;
  lab.add_file("1k", 1024);
  lab.start_server(ServerKind::kNginx, "server1");
  const auto [address, length] = vip(false).to_sockaddr();
  const sys::EnterNetns inside(lab.netns("client1"));
  const sys::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP));
  if (!fd) {
    std::cout << "SKIPPED: this kernel has no MPTCP\n";
    return;
  }
  const timeval patience{5, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0);
  const std::string request = get("/1k");
  REQUIRE(::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(request.size()));
  char answer[15] = {};
  CHECK(::recv(fd.get(), answer, sizeof answer, MSG_WAITALL) == sizeof answer);
  CHECK(std::string(answer, sizeof answer) == "HTTP/1.1 200 OK");
  CHECK(lab::role_number(*lab, "switch1", "committed") == 1);
}

TEST_CASE("round robin spreads over all servers of a pool") {
  TestLab lab({.servers = 3}, pool_per_server(3));
  if (skipped(lab)) return;
  std::filesystem::create_directory_symlink(".", lab.documents() / "all");
  lab.add_file("1k", 1024);
  for (const std::string node : {"server1", "server2", "server3"})
    lab.start_server(ServerKind::kNginx, node);
  for (int request = 0; request < 30; ++request) {
    HttpClient client(lab.netns("client1"), vip(false));
    client.send(get("/all/1k", "Connection: close\r\n"));
    REQUIRE(client.receive().status == 200);
  }
  for (const std::string node : {"server1", "server2", "server3"}) {
    const auto requests = lab.server(node).log().size();
    INFO(node);  // every event loop of the dispatcher counts on its own
    CHECK(requests >= 6);
    CHECK(requests <= 14);
  }
}

TEST_CASE("a pool server with a hand-off socket gets the connection as a descriptor") {
  const std::string socket = "/tmp/" + fresh_name() + ".sock";
  const std::string config =
      lab::web_service() +
      "[[service.route]]\nprefix = \"/\"\npool = \"fd\"\n"
      "[[pool]]\nname = \"fd\"\nservers = [{ node = \"server1\", port = 8080, handoff = \"" +
      socket + "\" }]\n";
  TestLab lab({.servers = 1}, config);
  const pid_t server =
      lab->spawn("server1", {program().string(), "lab", "fd-server", "--socket", socket},
                 lab.directory() / "fd.log");
  REQUIRE(lab::wait_until(5s, [&] { return std::filesystem::exists(socket); }));
  for (const bool ipv6 : {false, true}) {
    HttpClient client(lab.netns("client1"), vip(ipv6));
    for (int request = 0; request < 3; ++request) {
      INFO(lab.logs() << read_file(lab.directory() / "fd.log"));
      client.send(get("/anything"));
      const Response response = client.receive();
      REQUIRE(response.status == 200);
      CHECK(response.headers.at("x-peer") == client.local().str());
    }
  }
  const Output second = cli({"lab", "fd-server", "--socket", socket}, 5s);
  CHECK(second.code == 4);
  CHECK(second.error.find("another server listens on " + socket) != std::string::npos);
  CHECK(std::filesystem::exists(socket));
  lab::terminate({lab::identify(server).value()}, 3s);
  CHECK_FALSE(std::filesystem::exists(socket));
}

TEST_CASE("fd-server removes a socket that nobody listens on, and nothing else") {
  const lab::TemporaryDirectory directory;
  const auto path = directory.path() / "place";
  lab::write_text(path, "precious");
  const Output refused = cli({"lab", "fd-server", "--socket", path.string()}, 5s);
  CHECK(refused.code == 2);
  CHECK(refused.error.find("is no socket") != std::string::npos);
  CHECK(read_file(path) == "precious");

  const auto socket = directory.path() / "socket";
  const auto start = [&] {
    return lab::start({.argv = {program().string(), "lab", "fd-server", "--socket", socket}});
  };
  const pid_t killed = start();
  REQUIRE(lab::wait_until(20s, [&] { return std::filesystem::exists(socket); }));
  ::kill(killed, SIGKILL);
  lab::wait_for(killed);
  REQUIRE(std::filesystem::exists(socket));  // stale now
  const pid_t next = start();
  CHECK(lab::wait_until(20s, [&] { return is_listening(socket); }));
  CHECK(cli({"lab", "fd-server", "--socket", socket.string()}, 5s).code == 4);
  lab::terminate({lab::identify(next).value()}, 3s);
}
