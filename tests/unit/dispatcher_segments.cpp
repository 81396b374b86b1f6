// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <netinet/tcp.h>

#include <cstring>

#include "catch.hpp"
#include "control/client_segments.hpp"
#include "dispatcher/answers.hpp"
#include "dispatcher/shared.hpp"

using namespace tcpmig;

namespace {

std::vector<std::byte> segment(std::size_t data, bool fin, std::uint32_t seq) {
  tcphdr tcp{};
  tcp.seq = htonl(seq);
  tcp.doff = 8;
  tcp.ack = 1;
  tcp.psh = 1;
  tcp.fin = fin ? 1 : 0;
  std::vector<std::byte> bytes(32 + data);
  std::memcpy(bytes.data(), &tcp, sizeof tcp);
  for (std::size_t i = 0; i < data; ++i) bytes[32 + i] = static_cast<std::byte>(i);
  return bytes;
}

tcphdr header_of(const std::vector<std::byte>& bytes) {
  tcphdr tcp{};
  std::memcpy(&tcp, bytes.data(), sizeof tcp);
  return tcp;
}

}  // namespace

TEST_CASE("control: a captured super-packet is split with its numbers right") {
  const auto whole = segment(5000, true, 0xffffff00);
  const auto pieces = control::split_segment(whole, 1344);
  REQUIRE(pieces.size() == 4);
  std::vector<std::byte> data;
  for (const auto& piece : pieces) {
    CHECK(piece.size() <= 1344);
    const tcphdr tcp = header_of(piece);
    CHECK(ntohl(tcp.seq) == 0xffffff00 + static_cast<std::uint32_t>(data.size()));
    CHECK(tcp.fin == (&piece == &pieces.back()));
    CHECK(tcp.psh == (&piece == &pieces.back()));
    data.insert(data.end(), piece.begin() + 32, piece.end());
  }
  CHECK(std::equal(data.begin(), data.end(), whole.begin() + 32, whole.end()));
}

TEST_CASE("control: a pure FIN is one segment, nonsense is none") {
  CHECK(control::split_segment(segment(0, true, 1), 1344).size() == 1);
  CHECK(control::split_segment({}, 1344).empty());
  auto bad = segment(0, false, 1);
  bad[12] = std::byte{0xf0};
  CHECK(control::split_segment(bad, 1344).empty());
}

TEST_CASE("control: late bytes become segments of the client") {
  Snapshot snapshot;
  snapshot.rcv_nxt = {500};
  snapshot.snd_nxt = {900};
  snapshot.timestamps = Timestamps{1, 2, false};
  const std::vector<std::byte> late(10, std::byte{'x'});
  const auto pieces = control::craft_segments(snapshot, late, true, 1344);
  REQUIRE(pieces.size() == 1);
  const tcphdr tcp = header_of(pieces.front());
  CHECK(ntohl(tcp.seq) == 500);
  CHECK(ntohl(tcp.ack_seq) == 900);
  CHECK(tcp.fin);
  CHECK(tcp.doff == 8);
  CHECK(pieces.front().size() == 42);
}

TEST_CASE("dispatcher: answers of our own say how long they are") {
  const std::string answer = dispatcher::to_message({503, "no server"});
  CHECK(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
  const auto body = answer.substr(answer.find("\r\n\r\n") + 4);
  CHECK(answer.find("Content-Length: " + std::to_string(body.size()) + "\r\n") != answer.npos);
  CHECK(answer.find("Connection: close\r\n") != answer.npos);
  const std::string to_head = dispatcher::to_message({503, "no server", true});
  CHECK(to_head == answer.substr(0, answer.find("\r\n\r\n") + 4));
}

TEST_CASE("dispatcher: what a server was given since its last report counts") {
  dispatcher::LoadTable loads;
  CHECK_FALSE(loads.get(101).alive);
  CHECK(loads.report(101, 10, 7));
  CHECK(loads.get(101).alive);
  CHECK(loads.get(101).connections == 7);
  loads.assigned(101);
  loads.assigned(101);
  CHECK(loads.get(101).connections == 9);
  // a report that was recorded, or has been overtaken
  CHECK_FALSE(loads.report(101, 10, 0));
  CHECK_FALSE(loads.report(101, 9, 0));
  CHECK(loads.get(101).connections == 9);
  CHECK(loads.report(101, 11, 8));
  CHECK(loads.get(101).connections == 8);
  CHECK_FALSE(loads.get(102).alive);
}
