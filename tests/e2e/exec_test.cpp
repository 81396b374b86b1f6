// SPDX-License-Identifier: MIT
// Repair resume (forced on every kernel): programs under `tcpmig exec` take migrated connections in, whatever they wait in, and
// ordinary ones with them.
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include <iostream>
#include <thread>

#include "catch.hpp"
#include "e2e/exec_support.hpp"
#include "lab/generate.hpp"
#include "lab/plan.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using lab::ServerKind;

namespace {

sys::Endpoint own_address(const TestLab& lab, bool ipv6) {
  return {lab->node("server1").addresses.at(ipv6 ? 1 : 0), 80};
}

/// Two requests and an upload over one connection; `through` what it was sent to.
void talk(const TestLab& lab, const std::string& way, const sys::Endpoint& through) {
  HttpClient client(lab.netns("client1"), through);
  const std::string peer = client.local().str();
  for (int request = 0; request < 2; ++request) {
    client.send(get("/server1/"));
    const Response response = client.receive();
    REQUIRE(response.status == 200);
    CHECK(response.body == way + " " + peer + "\n");
    CHECK(response.headers.at("x-peer") == peer);
    CHECK(response.headers.at("x-nodelay") == "1");  // as the listener has it
    CHECK(response.headers.at("x-cloexec") == "1");  // as accept4() was asked for
  }
  const std::string body(100'000, 'u');
  client.send("POST /server1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + body);
  CHECK(client.receive().body == body);
}

/// Migrated and ordinary clients at the same time.
void talk_in_parallel(const TestLab& lab, const std::string& way, int rounds) {
  std::vector<std::thread> clients;
  std::atomic<int> failures = 0;
  for (int number = 0; number < 6; ++number)
    clients.emplace_back([&, number] {
      const bool ipv6 = number % 2 != 0;
      const sys::Endpoint to = number < 4 ? vip(ipv6) : own_address(lab, ipv6);
      for (int round = 0; round < rounds; ++round) {
        HttpClient client(lab.netns("client1"), to);
        client.send(get("/server1/", "Connection: close\r\n"));
        const Response response = client.receive();
        if (response.body != way + " " + client.local().str() + "\n") ++failures;
      }
    });
  for (std::thread& client : clients) client.join();
  CHECK(failures == 0);
}

void check_way(const std::string& way) {
  TestLab lab({.servers = 1, .resume = config::Resume::kRepair}, pool_per_server(1));
  const ExecProgram program(lab, {program_file("accept_ways"), way, "80"});
  INFO(way << lab.logs() << program.output());
  for (const bool ipv6 : {false, true}) {
    talk(lab, way, vip(ipv6));
    talk(lab, way, own_address(lab, ipv6));
  }
  talk_in_parallel(lab, way, 10);
  CHECK(lab::role_number(*lab, "server1", "handed_over") == 42);
  CHECK(lab::role_number(*lab, "server1", "tickets") == 42);
  CHECK(relays(lab) == 0);
  CHECK(lab::role_number(*lab, "server1", "tickets_untaken") == 0);
}

/// What a client gets of the service, and straight from the server, byte for byte.
void same_as_direct(const TestLab& lab, const std::string& request, bool keeps_alive) {
  for (const bool ipv6 : {false, true}) {
    HttpClient migrated(lab.netns("client1"), vip(ipv6));
    HttpClient direct(lab.netns("client1"), own_address(lab, ipv6));
    for (int round = 0; round < (keeps_alive ? 3 : 1); ++round) {
      migrated.send(request);
      direct.send(request);
      const Response one = migrated.receive(), other = direct.receive();
      INFO(request);
      CHECK(one.status != 0);
      CHECK(one.status == other.status);
      CHECK(one.body == other.body);
      CHECK(one.headers.size() == other.headers.size());
    }
  }
}

void check_stock(ServerKind kind) {
  if (!lab::find_server(kind)) {
    std::cout << "SKIPPED: " << to_string(kind) << " is not installed\n";
    return;
  }
  TestLab lab({.servers = 1, .resume = config::Resume::kRepair}, pool_per_server(1));
  const lab::Payload small = lab.add_file("1k", 1024), large = lab.add_file("20m", 20 << 20);
  lab.start_server(kind, "server1");
  INFO(to_string(kind) << lab.logs());
  same_as_direct(lab, get("/server1/1k"), keeps_alive(kind));
  same_as_direct(lab, get("/server1/20m"), false);
  // whatever it says to an upload: mostly 405
  same_as_direct(lab,
                 "POST /server1/1k HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" +
                     std::string(20'000, 'u'),
                 false);
  CHECK(relays(lab) == 0);
  for (const lab::LogEntry& entry : lab.server("server1").log()) {
    INFO(entry.line);
    // mini_httpd also logs who connects and says nothing: the look whether it is ready
    if (entry.path.starts_with("/server1/"))
      CHECK((entry.client == lab->node("client1").addresses.at(0) ||
             entry.client == lab->node("client1").addresses.at(1)));
    else
      CHECK((entry.client == lab->node("server1").addresses.at(0) ||
             entry.client == lab->node("server1").addresses.at(1)));
  }
  CHECK(lab::role_number(*lab, "server1", "handed_over") == 6);
}

}  // namespace

TEST_CASE("exec: accept() in threads") { check_way("threads"); }
TEST_CASE("exec: accept() in forked processes") { check_way("prefork"); }
TEST_CASE("exec: poll() in threads") { check_way("poll"); }
TEST_CASE("exec: pselect() in forked processes") { check_way("select"); }
TEST_CASE("exec: epoll, level-triggered, a set in each process") { check_way("level"); }
TEST_CASE("exec: epoll, edge-triggered, a set in each thread") { check_way("edge"); }
TEST_CASE("exec: epoll, one-shot") { check_way("oneshot"); }
TEST_CASE("exec: epoll, exclusive, a set in each process") { check_way("exclusive"); }
TEST_CASE("exec: SO_REUSEPORT, a listener in each process") { check_way("reuseport"); }
TEST_CASE("exec: TCP_DEFER_ACCEPT") { check_way("defer"); }

TEST_CASE("exec: nginx") { check_stock(ServerKind::kNginx); }
TEST_CASE("exec: lighttpd") { check_stock(ServerKind::kLighttpd); }
TEST_CASE("exec: apache2, event") { check_stock(ServerKind::kApacheEvent); }
TEST_CASE("exec: apache2, prefork") { check_stock(ServerKind::kApachePrefork); }
TEST_CASE("exec: mini_httpd") { check_stock(ServerKind::kMiniHttpd); }
TEST_CASE("exec: node") { check_stock(ServerKind::kNode); }
TEST_CASE("exec: python http.server") { check_stock(ServerKind::kPython); }

TEST_CASE("exec: nginx that accepts many at a time, as www-data") {
  TestLab lab({.servers = 1, .resume = config::Resume::kRepair}, pool_per_server(1));
  lab.add_file("1k", 1024);
  const auto work = lab.directory() / "nginx";
  std::filesystem::create_directories(work);
  lab::write_text(
      work / "nginx.conf",
      "user www-data;\ndaemon off;\nworker_processes 3;\npid nginx.pid;\nerror_log error.log;\n"
      "events { multi_accept on; accept_mutex on; }\nhttp { access_log off;\n"
      "client_body_temp_path body; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; "
      "scgi_temp_path s;\nserver { listen 80; listen [::]:80; root " +
          lab.documents().string() + "; } }\n");
  const ExecProgram program(
      lab, {"nginx", "-p", work, "-e", work / "error.log", "-c", work / "nginx.conf"});
  std::vector<std::thread> clients;
  std::atomic<int> good = 0;
  for (int number = 0; number < 8; ++number)
    clients.emplace_back([&, number] {
      for (int round = 0; round < 15; ++round) {
        HttpClient client(lab.netns("client1"), vip(number % 2 != 0));
        client.send(get("/server1/1k"));
        if (client.receive().body.size() == 1024) ++good;
      }
    });
  for (std::thread& client : clients) client.join();
  INFO(lab.logs() << program.output() << read_file(work / "error.log"));
  CHECK(good == 120);
  CHECK(lab::role_number(*lab, "server1", "handed_over") == 120);
  CHECK(relays(lab) == 0);
}

TEST_CASE("exec: asyncio, and Java's selector") {
  const std::string python =
      "import asyncio\n"
      "async def serve(reader, writer):\n"
      "    await reader.readuntil(b'\\r\\n\\r\\n')\n"
      "    peer = writer.get_extra_info('peername')\n"
      "    body = ('loop %s\\n' % peer[0].replace('::ffff:', '')).encode()\n"
      "    writer.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(body) + "
      "body)\n"
      "    await writer.drain()\n"
      "    writer.close()\n"
      "async def main():\n"
      "    server = await asyncio.start_server(serve, None, 80)\n"
      "    await server.serve_forever()\n"
      "asyncio.run(main())\n";
  const std::string java =
      "import com.sun.net.httpserver.*; import java.net.*;\n"
      "public class Server { public static void main(String[] a) throws Exception {\n"
      "  HttpServer server = HttpServer.create(new InetSocketAddress(\"::\", 80), 0);\n"
      "  server.createContext(\"/\", e -> {\n"
      "    byte[] body = (\"loop \" + e.getRemoteAddress().getAddress().getHostAddress() + "
      "\"\\n\").getBytes();\n"
      "    e.sendResponseHeaders(200, body.length); e.getResponseBody().write(body); e.close(); "
      "});\n"
      "  server.start(); } }\n";
  const bool is_java = GENERATE(false, true);
  if (is_java && !std::filesystem::exists("/usr/bin/javac")) {
    std::cout << "SKIPPED: no Java compiler is installed\n";
    return;
  }
  TestLab lab({.servers = 1, .resume = config::Resume::kRepair}, pool_per_server(1));
  const auto file = lab.directory() / (is_java ? "Server.java" : "server.py");
  lab::write_text(file, is_java ? java : python);
  const ExecProgram program(lab, {is_java ? "java" : "/usr/bin/python3", file});
  for (int round = 0; round < 4; ++round)
    for (const bool ipv6 : {false, true}) {
      HttpClient client(lab.netns("client1"), vip(ipv6));
      client.send(get("/server1/"));
      INFO(lab.logs() << program.output());
      const std::string body = client.receive().body;
      CHECK(body == (ipv6 && is_java ? "loop fd00:1:0:0:0:0:0:2\n"
                                     : "loop " + client.local().address.str() + "\n"));
    }
  CHECK(lab::role_number(*lab, "server1", "handed_over") == 8);
}
