// SPDX-License-Identifier: MIT
#include "net/moving.hpp"

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <thread>

#include <tcpmig/codec.hpp>

#include "catch.hpp"
#include "conn/endpoints.hpp"
#include "conn/segment.hpp"
#include "sys/check.hpp"

namespace conn_test {

using std::chrono::steady_clock;
using tcpmig::CapturedSegment;
using tcpmig::Frozen;
using tcpmig::Snapshot;
using tcpmig::sys::UniqueFd;

namespace {

constexpr std::size_t kPeriod = 1'000'003;  // a prime: no multiple of a segment or a buffer
constexpr std::size_t kChunk = 256 << 10;
constexpr auto kStalled = std::chrono::seconds(30);

/// The stream's bytes from `position` on, at most a chunk.
std::span<const std::byte> stream_at(std::uint64_t position) {
  static const Bytes twice = [] {
    Bytes bytes = pattern(kPeriod, 5);
    bytes.resize(kPeriod + kChunk);
    std::copy_n(bytes.begin(), kChunk, bytes.begin() + kPeriod);
    return bytes;
  }();
  return std::span(twice).subspan(position % kPeriod, kChunk);
}

bool later(const char* what) {
  if (errno == EAGAIN || errno == EINTR) return false;
  tcpmig::sys::check(what, -1);
  return false;
}

/// Bytes that were acknowledged behind the lock: nobody else sends them again.
void send_late_bytes(const Frozen& left, tcpmig::sys::Tun& tun) {
  const Bytes late = left.late_bytes();
  if (late.empty()) return;
  const Snapshot& snapshot = left.snapshot();
  tcphdr tcp{};
  tcp.doff = sizeof(tcp) / 4;
  tcp.ack = 1;
  tcp.seq = htonl(snapshot.rcv_nxt.value);
  tcp.ack_seq = htonl(snapshot.snd_una.value);
  tcp.window = htons(1000);
  Bytes segment(sizeof tcp);
  std::memcpy(segment.data(), &tcp, sizeof tcp);
  segment.insert(segment.end(), late.begin(), late.end());
  tcpmig::conn::give_packets(snapshot.peer, snapshot.local, segment,
                             [&](auto packet) { tun.inject(packet); });
}

}  // namespace

bool Streamer::send_some(int fd) {
  if (sent_ == total_) return false;
  const auto bytes = stream_at(sent_).first(
      static_cast<std::size_t>(std::min<std::uint64_t>(kChunk, total_ - sent_)));
  const ssize_t put = ::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (put < 0) return later("send");
  sent_ += static_cast<std::uint64_t>(put);
  return true;
}

bool Streamer::receive_some(int fd) {
  static thread_local Bytes buffer(kChunk);
  if (received_ == total_) return false;
  const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got < 0) return later("recv");
  const std::string after = " after " + std::to_string(received_) + " bytes";
  if (got == 0) throw std::runtime_error("the stream ends" + after);
  if (std::memcmp(buffer.data(), stream_at(received_).data(), static_cast<std::size_t>(got)) != 0)
    throw std::runtime_error("a wrong byte" + after);
  received_ += static_cast<std::uint64_t>(got);
  return true;
}

bool Streamer::turn(int fd) {
  const bool received = receive_some(fd);
  return send_some(fd) || received;
}

MovingEnd::MovingEnd(World& world, UniqueFd fd)
    : world_(world),
      freeze_kit_(kit_options()),
      tun_a_(tun_in(world.a)),
      tun_b_(tun_in(world.b)),
      fd_(std::move(fd)),
      here_(tcpmig::conn::dump_endpoints(fd_.get()).local),
      client_(tcpmig::conn::dump_endpoints(fd_.get()).peer) {}

void MovingEnd::forward_captures() {
  tcpmig::sys::Tun& tun = at_a_ ? tun_a_ : tun_b_;
  freeze_kit_.consume_captures([&](const CapturedSegment& segment) {
    tcpmig::conn::give_packets(client_, here_, segment.bytes,
                               [&](auto packet) { tun.inject(packet); });
  });
}

bool MovingEnd::move() {
  finish_move();
  auto frozen = tcpmig::try_freeze(std::move(fd_), {}, freeze_kit_, tcpmig::Scope::kWhole);
  if (!frozen) {
    fd_ = std::move(frozen.error().fd);
    if (frozen.error().reason.find("out of order") == std::string::npos)
      throw std::runtime_error(frozen.error().reason);
    forward_captures();
    return false;
  }
  const auto decoded = tcpmig::decode(tcpmig::encode(frozen->snapshot()));
  const Namespace& to = at_a_ ? world_.b : world_.a;
  {
    const auto in = to.enter();
    fd_ = tcpmig::repair_resume(decoded.value(), {}, {}, &resume_kit_);
  }
  at_a_ = !at_a_;
  left_.emplace(std::move(*frozen));
  forward_captures();  // before anything can overtake it
  world_.route_to(to);
  forward_captures();
  ++moves_;
  return true;
}

void MovingEnd::finish_move() {
  if (!left_) return;
  forward_captures();
  send_late_bytes(*left_, at_a_ ? tun_a_ : tun_b_);
  left_->commit();
  left_.reset();
}

namespace {

/// The client's side, in a thread of its own.
struct Client {
  Client(int fd, std::uint64_t bytes) : streamer(bytes), thread([this, fd] { run(fd); }) {}
  void run(int fd) {
    try {
      pollfd events{.fd = fd, .events = POLLIN, .revents = 0};
      auto last = steady_clock::now();
      while (!streamer.done()) {
        if (!streamer.turn(fd)) {
          events.events = POLLIN | POLLOUT;
          ::poll(&events, 1, 1);
        } else {
          const auto now = steady_clock::now();
          longest = std::max<std::chrono::nanoseconds>(longest, now - last);
          last = now;
        }
        if (steady_clock::now() - last > kStalled) throw std::runtime_error("the client is stuck");
      }
    } catch (...) {
      error = std::current_exception();
      failed = true;
    }
  }
  Streamer streamer;
  std::chrono::nanoseconds longest{};
  std::exception_ptr error;
  std::atomic<bool> failed = false;
  std::jthread thread;
};

}  // namespace

Moved stream_and_move(World& world, Family family, std::uint64_t bytes,
                      const std::function<bool(std::uint64_t, unsigned)>& next) {
  constexpr std::uint64_t kSettled =
      100'000;  // bytes after a move until the host that was left is forgotten
  Pair pair = connect_pair(world, world.a, family);
  MovingEnd server(world, std::move(pair.server));
  Streamer streamer(bytes);
  const auto start = steady_clock::now();
  Client client(pair.client.get(), bytes);
  auto last = start;
  unsigned refused = 0;
  std::chrono::nanoseconds longest_move{};
  for (std::uint64_t moved_at = 0; !streamer.done() && !client.failed;) {
    if (streamer.turn(server.fd())) {
      last = steady_clock::now();
    } else {
      pollfd events{.fd = server.fd(), .events = POLLIN | POLLOUT, .revents = 0};
      ::poll(&events, 1, 1);
    }
    if (steady_clock::now() - last > kStalled) throw std::runtime_error("the server is stuck");
    if (streamer.progress() - moved_at > kSettled) server.finish_move();
    if (!next(streamer.progress(), server.moves())) continue;
    const auto began = steady_clock::now();
    const bool done = server.move();
    longest_move = std::max<std::chrono::nanoseconds>(longest_move, steady_clock::now() - began);
    if (done)
      moved_at = streamer.progress();
    else
      ++refused;
  }
  client.thread.join();
  if (client.error) std::rethrow_exception(client.error);
  return {.moves = server.moves(),
          .took = steady_clock::now() - start,
          .longest_pause = client.longest,
          .sent_again = info_of(pair.client.get()).tcpi_total_retrans,
          .captures_lost = server.captures_lost(),
          .longest_move = longest_move,
          .refused = refused};
}

}  // namespace conn_test
