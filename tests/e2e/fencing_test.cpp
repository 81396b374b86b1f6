// SPDX-License-Identifier: MIT
// A server that has opened a connection is cut off before it could say a word. The connection goes on elsewhere; and when the links are
// back, the server's socket is ended, and nothing of it has reached the client.
#include <linux/bpf.h>  // the TCP states

#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "e2e/outage.hpp"
#include "e2e/rst_counter.hpp"
#include "e2e/traffic.hpp"
#include "lab/generate.hpp"
#include "sys/netns.hpp"
#include "sys/sock_diag.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

constexpr std::chrono::seconds kBound{30};  // the machine may be busy

/// A pool for each request: its first server is server1, its next one server2.
std::string pools() {
  std::string text = lab::web_service(), routes, pools;
  for (const std::string name : {"get4", "get6", "post4", "post6"}) {
    routes += "[[service.route]]\nprefix = \"/" + name + "\"\npool = \"" + name + "\"\n";
    pools += "[[pool]]\nname = \"" + name +
             "\"\nalgorithm = \"round_robin\"\nservers = [{ node = \"server1\", port = 80 }, "
             "{ node = \"server2\", port = 80 }]\n";
  }
  return text + routes + pools +
         "[timeouts]\ntransfer = \"1s\"\nclosing = \"30s\"\nscan = \"500ms\"\n";
}

/// node on a server, with files of its own: of the same names, with other bytes.
class Origin {
 public:
  Origin(const TestLab& lab, const std::string& node)
      : documents_(lab.directory() / ("www-" + node)) {
    std::filesystem::create_directories(documents_);
    for (const std::string name : {"get4", "get6"})
      files_.push_back(lab::make_payload(documents_, name, 4 << 20));
    server_.emplace(*lab, lab::StockServer::Options{.kind = lab::ServerKind::kNode,
                                                    .node = node,
                                                    .documents = documents_,
                                                    .work = lab.directory() / node});
  }
  [[nodiscard]] const lab::Payload& file(bool ipv6) const { return files_.at(ipv6 ? 1 : 0); }
  [[nodiscard]] std::size_t runs(const std::string& path) const {
    std::size_t count = 0;
    for (const lab::LogEntry& entry : server_->log()) count += entry.path == path;
    return count;
  }

 private:
  std::filesystem::path documents_;
  std::vector<lab::Payload> files_;
  std::optional<lab::StockServer> server_;
};

/// What server1 says in the name of the service, of transfers, and to the switch, goes into a cable that ends nowhere.
void mute(const TestLab& lab) {
  ip(lab, "server1", "link add sink type veth peer name drain");
  for (const char* end : {"sink", "drain"})
    ip(lab, "server1", std::string("link set ") + end + " arp off up");
  for (const std::string family : {"-4", "-6"}) {
    const bool ipv4 = family == "-4";
    const std::string to_switch = lab->node("switch1").addresses.at(ipv4 ? 4 : 5).str();
    const std::string block = ipv4 ? "100.64.0.0/10" : "fd7c::/64";
    ip(lab, "server1", family + " route add default dev sink table 99");
    ip(lab, "server1", family + " rule add pref 1 from " + block + " lookup 99");
    ip(lab, "server1",
       family + " rule add pref 2 ipproto udp sport 7420 dport 10000-65534 lookup 99");
    ip(lab, "server1", family + " rule add pref 3 ipproto udp to " + to_switch + " lookup 99");
  }
}

void unmute(const TestLab& lab) {
  for (const std::string family : {"-4", "-6"})
    for (const std::string preference : {"1", "2", "3"})
      ip(lab, "server1", family + " rule del pref " + preference);
  ip(lab, "server1", "link del sink");
}

/// Its cable to the switch.
void plug(const TestLab& lab, bool in) {
  ip(lab, "fabric", std::string("link set server1 ") + (in ? "up" : "down"));
}

/// Accepted, and answered: the answer is on its way to nowhere.
bool is_answering(const TestLab& lab, const sys::Endpoint& client) {
  const sys::EnterNetns inside(lab.netns("server1"));
  sys::SockDiag diag;
  bool answering = false;
  diag.for_each(1U << BPF_TCP_ESTABLISHED, [&](const sys::SocketInfo& socket) {
    if (socket.peer == client) answering = socket.inode != 0 && socket.send_queue > 0;
  });
  return answering;
}

std::uint64_t of_switch(const TestLab& lab, const std::string& name) {
  return number_of(lab, "switch1", name);
}

/// The client has its answer, or waits for the rest of it, from somebody else: server1 comes back.
void check_fenced(const TestLab& lab, const sys::Endpoint& client) {
  const auto revoked = of_switch(lab, "revoked");
  const auto ended = number_of(lab, "server1", "revoked");
  CHECK(is_answering(lab, client));
  unmute(lab);
  plug(lab, true);
  CHECK(lab::wait_until(kBound, [&] { return sockets_of(lab, "server1", client) == 0; }));
  CHECK(of_switch(lab, "revoked") > revoked);
  CHECK(number_of(lab, "server1", "revoked") == ended + 1);
}

bool has_begun(const HttpClient& client) {
  char byte = 0;
  return ::recv(client.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

bool is_alive(const TestLab& lab, const std::string& server) {
  const auto status = status_of(lab, "dispatcher1");
  for (const auto& one : status.at("servers"))
    if (one.at("name") == server) return one.at("alive");
  return false;
}

/// Its first transfer has been opened by server1, which is cut off then.
void cut_off(const TestLab& lab, HttpClient& client, const std::string& request) {
  REQUIRE(lab::wait_until(kBound, [&] { return is_alive(lab, "server1"); }));
  mute(lab);
  client.send(request);
  REQUIRE(lab::wait_until(5s, [&] { return is_answering(lab, client.local()); }, 1ms));
  plug(lab, false);
}

}  // namespace

TEST_CASE(
    "a server that is cut off when it has a connection: another one answers, its own socket ends") {
  TestLab lab({.servers = 2}, pools());
  if (skipped(lab) || skipped_in_repair("its agent could not give the connection to the server"))
    return;
  const Origin first(lab, "server1"), second(lab, "server2");
  for (const bool ipv6 : {false, true}) {
    const std::string path = ipv6 ? "/get6" : "/get4";
    INFO((ipv6 ? "v6\n" : "v4\n") << lab.logs());
    RstCounter resets(lab.netns("client1"));
    HttpClient client(lab.netns("client1"), vip(ipv6));
    cut_off(lab, client, get(path));
    REQUIRE(lab::wait_until(kBound, [&] { return has_begun(client); }));
    check_fenced(lab, client.local());
    CHECK(lab::sha256_of_bytes(client.receive().body) == second.file(ipv6).sha256);
    CHECK(first.runs(path) == 1);
    CHECK(second.runs(path) == 1);
    CHECK(of_switch(lab, "drop_not_owner") > 0);
    CHECK(resets.count() == 0);
  }
}

TEST_CASE(
    "a server that is cut off when it has a POST: the client gets 504, and nothing of the server") {
  TestLab lab({.servers = 2}, pools());
  if (skipped(lab) || skipped_in_repair("its agent could not give the connection to the server"))
    return;
  const Origin first(lab, "server1"), second(lab, "server2");
  for (const bool ipv6 : {false, true}) {
    const std::string path = ipv6 ? "/post6" : "/post4";
    INFO((ipv6 ? "v6\n" : "v4\n") << lab.logs());
    RstCounter resets(lab.netns("client1"));
    HttpClient client(lab.netns("client1"), vip(ipv6));
    cut_off(lab, client, post(path, "once"));
    CHECK(client.receive().status == 504);
    check_fenced(lab, client.local());
    CHECK(client.receive_all().empty());
    CHECK(first.runs(path) == 1);
    CHECK(second.runs(path) == 0);
    CHECK(resets.count() == 0);
  }
}
