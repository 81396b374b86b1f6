// SPDX-License-Identifier: MIT
// Clients that go on sending while their connection is moved: no packet of theirs is lost to the
// transfer.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <fstream>
#include <iostream>
#include <mutex>
#include <sstream>
#include <thread>

#include "catch.hpp"
#include "e2e/strange.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;
using lab::ServerKind;

namespace {

std::string body_of(std::size_t size) {
  std::string body(size, '\0');
  for (std::size_t i = 0; i < size; ++i) body[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  return body;
}

/// What a client sends, in pieces as it sends them, and what is to come back.
struct Talk {
  std::vector<std::string> pieces;
  std::vector<std::string> answers;  ///< checksums of the bodies
};

std::vector<std::string> cut(const std::string& text, std::size_t piece) {
  std::vector<std::string> pieces;
  for (std::size_t i = 0; i < text.size(); i += piece) pieces.push_back(text.substr(i, piece));
  return pieces;
}

Talk upload(std::size_t size, std::size_t piece) {
  const std::string body = body_of(size);
  const std::string head =
      "POST /server1/upload HTTP/1.1\r\nHost: lab\r\nContent-Length: " + std::to_string(size) +
      "\r\n\r\n";
  Talk talk{cut(body, piece), {lab::sha256_of_bytes(lab::sha256_of_bytes(body) + "\n")}};
  talk.pieces.insert(talk.pieces.begin(), head);
  return talk;
}

Talk pipeline(const lab::Payload& file, std::size_t requests) {
  Talk talk;
  for (std::size_t i = 0; i < requests; ++i) {
    talk.pieces.push_back(get("/server2/" + file.name));
    talk.answers.push_back(file.sha256);
  }
  return talk;
}

struct Sender {
  Sender(RawNetwork& network, bool ipv6, const Talk& what, const Shape& shape)
      : client(network, vip(ipv6), shape), talk(what) {}
  RawClient client;
  const Talk& talk;
  std::size_t sent = 0;
};

/// All of them send at once, a piece at a time, each as far as its window allows. True: everything
/// was acknowledged, though nothing was sent twice.
bool send_all(RawNetwork& network, std::vector<std::unique_ptr<Sender>>& senders) {
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  const auto all = [&](const auto& condition) {
    return std::all_of(senders.begin(), senders.end(), condition);
  };
  const auto done = [](const auto& sender) {
    return sender->sent == sender->talk.pieces.size() &&
           sender->client.snd_una() == sender->client.snd_nxt();
  };
  while (!all(done) && std::chrono::steady_clock::now() < deadline) {
    for (const auto& sender : senders) {
      if (sender->sent == sender->talk.pieces.size()) continue;
      const std::string& piece = sender->talk.pieces[sender->sent];
      if (sender->client.room() < piece.size()) continue;
      sender->client.send(piece);
      ++sender->sent;
    }
    network.run([] { return true; });
  }
  return all(done);
}

/// Packets that this machine has thrown away because a CPU was behind (net.core.netdev_max_backlog), in all namespaces: /proc/net/softnet_stat.
std::uint64_t dropped_by_machine() {
  std::ifstream file("/proc/net/softnet_stat");
  std::uint64_t total = 0;
  std::string line, processed, dropped;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    words >> processed >> dropped;
    total += std::stoull(dropped, nullptr, 16);
  }
  return total;
}

std::string in_words(const TestLab& lab) {
  const auto counters = lab::role_status(*lab, "dispatcher1").at("counters");
  std::string text = "captures " + counters.at("captures_sent_on").dump() + ", too many " +
                     counters.at("captures_dropped_full").dump();
  for (const char* server : {"server1", "server2"}) {
    const auto agent = lab::role_status(*lab, server).at("agent");
    for (const auto& [name, value] : agent.items())
      if (value != 0 &&
          (name.find("full") != std::string::npos || name.find("dropped") != std::string::npos))
        text += ", " + std::string(server) + ' ' + name + ' ' + value.dump();
  }
  return text;
}

/// Segments with SACK: an ordinary client would have sent again.
std::size_t gaps_in(const std::vector<std::unique_ptr<Sender>>& senders) {
  std::size_t count = 0;
  for (const auto& sender : senders)
    for (const Segment& segment : sender->client.seen()) count += segment.sack.empty() ? 0 : 1;
  return count;
}

void check_senders(Strange& world, const Talk& talk, bool ipv6, unsigned count,
                   std::size_t& told_of_gaps) {
  std::vector<std::unique_ptr<Sender>> senders;
  const std::uint64_t dropped_before = dropped_by_machine();
  for (unsigned i = 0; i < count; ++i)
    senders.push_back(std::make_unique<Sender>(*world.network, ipv6, talk, Shape{}));
  for (const auto& sender : senders) REQUIRE(sender->client.connect());
  const bool all = send_all(*world.network, senders);
  if (!all) {
    for (const auto& sender : senders)
      if (sender->client.snd_una() != sender->client.snd_nxt()) {
        UNSCOPED_INFO(sender->client.snd_nxt() - sender->client.snd_una()
                      << " bytes of " << sender->client.seen_text());
      }
    FAIL_CHECK("not everything was acknowledged, " << in_words(world.lab)
                                                   << ", dropped by the machine "
                                                   << dropped_by_machine() - dropped_before);
  }
  told_of_gaps += gaps_in(senders);
  for (const auto& sender : senders)
    for (const std::string& answer : talk.answers) {
      const Response response = sender->client.receive();
      CHECK(response.status == 200);
      CHECK(lab::sha256_of_bytes(response.body) == answer);
    }
}

/// What the clients' kernels sent again, and how much of it because somebody said that it was missing (fast retransmission).
/// Needless: the receiver had it already, and said so (D-SACK, RFC 2883).
struct Resent {
  std::uint64_t connections = 0, segments = 0, needless = 0, told = 0;
  std::vector<std::string> failures;
};

::tcp_info info_of(int fd) {
  ::tcp_info info{};
  socklen_t length = sizeof info;
  ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
  return info;
}

/// One connection of an ordinary client. Empty: the answers were right.
std::string talk_once(const TestLab& lab, const sys::Endpoint& to, const Talk& talk,
                      Resent& resent) {
  HttpClient client(lab.netns("client1"), to);
  for (const std::string& piece : talk.pieces) client.send(piece);
  for (const std::string& answer : talk.answers)
    if (const Response response = client.receive();
        response.status != 200 || lab::sha256_of_bytes(response.body) != answer)
      return client.local().str() + ": a wrong answer, status " + std::to_string(response.status);
  lab::wait_until(1s, [&] {
    const auto info = info_of(client.fd());
    return info.tcpi_total_retrans == info.tcpi_dsack_dups;
  });
  const auto info = info_of(client.fd());
  ++resent.connections;
  resent.segments += info.tcpi_total_retrans;
  resent.needless += std::min(info.tcpi_dsack_dups, info.tcpi_total_retrans);
  return {};
}

Resent talk_with_many(const TestLab& lab, const sys::Endpoint& to, const Talk& talk,
                      unsigned count) {
  constexpr unsigned kParallel = 8;
  const std::uint64_t before = netstat(lab, "client1", "TCPFastRetrans");
  Resent all;
  std::mutex mutex;
  const auto work = [&] {
    Resent own;
    for (unsigned i = 0; i < count / kParallel; ++i) try {
        if (auto failure = talk_once(lab, to, talk, own); !failure.empty())
          own.failures.push_back(std::move(failure));
      } catch (const std::exception& error) {
        own.failures.emplace_back(error.what());
      }
    const std::lock_guard lock(mutex);
    all.connections += own.connections;
    all.segments += own.segments;
    all.needless += own.needless;
    all.failures.insert(all.failures.end(), own.failures.begin(), own.failures.end());
  };
  std::vector<std::jthread> threads;
  for (unsigned i = 0; i < kParallel; ++i) threads.emplace_back(work);
  threads.clear();
  all.told = netstat(lab, "client1", "TCPFastRetrans") - before;
  return all;
}

/// A busy machine acknowledges late, and clients try once more (TLP, RFC 8985), directly or not: a client sends one segment
/// again then. What a transfer brings out of order must not be told: with the SACKs that say so it is one in two pipelines, or
/// all that was captured. Returns how many connections there were.
unsigned check_kernel_clients(Strange& world, const std::string& name, const Talk& talk, bool ipv6,
                              const std::string& node) {
  constexpr unsigned kConnections = 56, kRounds = 3;
  const sys::Endpoint direct{world.lab->node(node).addresses.at(ipv6 ? 1 : 0), 80};
  INFO(name << (ipv6 ? " v6\n" : " v4\n") << in_words(world.lab) << '\n' << world.lab.logs());
  bool alike = false;
  unsigned rounds = 0;
  for (; rounds < kRounds && !alike; ++rounds) {
    const Resent control = talk_with_many(world.lab, direct, talk, kConnections);
    const Resent moved = talk_with_many(world.lab, vip(ipv6), talk, kConnections);
    std::cout << name << (ipv6 ? " v6" : " v4") << ": sent again " << moved.segments
              << " (needless " << moved.needless << ", told to " << moved.told << "), directly "
              << control.segments << " (needless " << control.needless << ", told to "
              << control.told << ")\n";
    CHECK(moved.failures == std::vector<std::string>{});
    CHECK(moved.connections == kConnections);
    alike = moved.segments <= 2 * control.segments + kConnections &&
            moved.told <= control.told + kConnections / 14;
  }
  CHECK(alike);
  return rounds * kConnections;
}

}  // namespace

TEST_CASE("ordinary clients that go on sending send no more again than directly") {
  Strange world({.servers = 2}, pool_per_server(2), false);
  if (skipped(world.lab)) return;
  world.lab.start_server(ServerKind::kNode, "server1");
  world.lab.start_server(ServerKind::kNginx, "server2");
  unsigned connections = 0;
  for (const bool ipv6 : {false, true}) {
    connections += check_kernel_clients(world, "upload", upload(200'000, 60'000), ipv6, "server1");
    connections += check_kernel_clients(world, "trickle", upload(3'000, 100), ipv6, "server1");
    connections +=
        check_kernel_clients(world, "pipeline", pipeline(world.small, 30), ipv6, "server2");
  }
  CHECK(world.committed() == connections);
}

TEST_CASE("raw clients that never send twice: uploads, pipelines and trickles arrive whole") {
  const auto datapath = GENERATE(config::Datapath::kTc, config::Datapath::kXdp);
  Strange world({.servers = 2, .datapath = datapath}, pool_per_server(2), false);
  if (skipped(world.lab)) return;
  world.lab.start_server(ServerKind::kNode, "server1");
  world.lab.start_server(ServerKind::kNginx, "server2");
  const std::pair<const char*, Talk> talks[] = {{"upload", upload(60'000, 1380)},
                                                {"trickle", upload(3'000, 50)},
                                                {"pipeline", pipeline(world.small, 30)}};
  unsigned transfers = 0;
  std::size_t told_of_gaps = 0;
  for (const auto& [name, talk] : talks)
    for (const unsigned count : {1U, 1U, 8U, 16U})
      for (const bool ipv6 : {false, true}) {
        INFO(name << (ipv6 ? " v6\n" : " v4\n") << world.lab.logs());
        check_senders(world, talk, ipv6, count, told_of_gaps);
        transfers += count;
      }
  CHECK(world.committed() == transfers);
  std::cout << transfers << " transfers: " << in_words(world.lab) << ", told of gaps "
            << told_of_gaps << '\n';
  CHECK(told_of_gaps < transfers / 4);  // a busy machine may deliver late
}

TEST_CASE("raw clients that never send twice, and a server that refuses: it gives back what came") {
  Strange world({.servers = 2}, {}, false);
  if (skipped(world.lab)) return;
  world.lab.start_server(ServerKind::kNginx, "server2");  // nobody listens on server1
  const Talk talk = pipeline(world.small, 30);
  unsigned transfers = 0;
  std::size_t told_of_gaps = 0;
  for (const unsigned count : {1U, 8U, 16U, 16U})
    for (const bool ipv6 : {false, true}) {
      INFO((ipv6 ? "v6\n" : "v4\n") << world.lab.logs());
      check_senders(world, talk, ipv6, count, told_of_gaps);
      transfers += count;
    }
  const auto counters = lab::role_status(*world.lab, "dispatcher1").at("counters");
  std::cout << transfers << " transfers, refused first: " << counters.at("tried_next_server")
            << ", handed back: " << counters.at("handed_back") << '\n';
  CHECK(counters.at("transferred") == transfers);
  CHECK(counters.at("tried_next_server") > 0);
  CHECK(counters.at("handed_back") > 0);
  CHECK(lab::role_status(*world.lab, "server1").at("agent").at("handed_back") > 0);
}
