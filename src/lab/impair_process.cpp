// SPDX-License-Identifier: MIT
#include "lab/impair_process.hpp"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <nlohmann/json.hpp>

#include "control/status_socket.hpp"
#include "lab/impairment.hpp"
#include "lab/state.hpp"
#include "sys/check.hpp"
#include "sys/errors.hpp"
#include "sys/netns.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::lab {
namespace {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kFrameMax = 64 * 1024;
constexpr std::size_t kQueueMax = 20'000;  ///< frames under way, all links: some 30 MB
constexpr int kSocketBuffer = 8 << 20;
constexpr unsigned kBatch = 64;
constexpr int kNice = -10;  ///< its lateness would look like the network's

sys::UniqueFd open_end(const std::string& device) {
  sys::UniqueFd fd(sys::check("socket AF_PACKET",
                              ::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  const int on = 1;
  // what this socket sends is not to come back as received
  sys::check("setsockopt PACKET_IGNORE_OUTGOING",
             ::setsockopt(fd.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on));
  sys::check("setsockopt SO_RCVBUFFORCE", ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE,
                                                       &kSocketBuffer, sizeof kSocketBuffer));
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(::if_nametoindex(device.c_str()));
  if (address.sll_ifindex == 0) throw sys::NotFound("there is no device " + device + " here");
  sys::check("bind " + device,
             ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  return fd;
}

struct Counters {
  std::uint64_t frames = 0;  ///< that came
  std::uint64_t lost = 0, doubled = 0, held = 0;
  std::uint64_t not_sent = 0;  ///< too many under way, or the other end did not take it
};

/// One direction of a link.
struct Way {
  Way(asio::io_context& io, sys::UniqueFd from, int to_fd, const Impairment& impairment,
      const std::string& direction)
      : source(io, from.release()), to(to_fd), dice(impairment, direction) {}
  asio::posix::stream_descriptor source;
  int to;
  Dice dice;
  Counters counters;
  Clock::time_point last_release{};
};

struct Frame {
  Clock::time_point release;
  std::uint64_t number = 0;  ///< among those of the same instant, the first come
  Way* way = nullptr;
  std::string bytes;
  /// For a heap with the next one on top.
  bool operator<(const Frame& other) const {
    return std::pair(release, number) > std::pair(other.release, other.number);
  }
};

/// Both ways of the link of one node.
struct Link {
  std::string name;
  std::unique_ptr<Way> from_node, to_node;
};

nlohmann::json to_json(const Counters& counters) {
  return {{"frames", counters.frames},
          {"lost", counters.lost},
          {"doubled", counters.doubled},
          {"held", counters.held},
          {"not_sent", counters.not_sent}};
}

class Impairer {
 public:
  Impairer(asio::io_context& io, Impairment impairment)
      : io_(io), impairment_(std::move(impairment)), timer_(io) {}

  void add(const std::string& name) {
    sys::UniqueFd node = open_end(node_end(name)), bridge = open_end(bridge_end(name));
    const int node_fd = node.get(), bridge_fd = bridge.get();
    links_.push_back(
        {name, std::make_unique<Way>(io_, std::move(node), bridge_fd, impairment_, name + " from"),
         std::make_unique<Way>(io_, std::move(bridge), node_fd, impairment_, name + " to")});
    watch(*links_.back().from_node);
    watch(*links_.back().to_node);
  }

  [[nodiscard]] nlohmann::json links() const {
    nlohmann::json result = nlohmann::json::array();
    for (const Link& link : links_)
      result.push_back({{"link", link.name},
                        {"from_node", to_json(link.from_node->counters)},
                        {"to_node", to_json(link.to_node->counters)}});
    return result;
  }

 private:
  void watch(Way& way) {
    way.source.async_wait(asio::posix::stream_descriptor::wait_read,
                          [this, &way](const boost::system::error_code& error) {
                            if (error) return;
                            read(way);
                            watch(way);
                          });
  }

  void read(Way& way) {
    for (unsigned i = 0; i < kBatch; ++i) {
      const ssize_t got =
          ::recv(way.source.native_handle(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
      if (got <= 0) break;  // nothing more, or a device that has gone down: it may come back
      take(way, {buffer_.data(), static_cast<std::size_t>(got)});
    }
    arm();
  }

  void take(Way& way, std::string_view bytes) {
    ++way.counters.frames;
    const Fate fate = way.dice.next();
    if (fate.lost) {
      ++way.counters.lost;
      return;
    }
    const auto now = Clock::now();
    auto release = now;
    if (fate.delay.count() > 0) release += fate.delay;
    release = std::max(release, way.last_release);
    if (fate.held.count() > 0) {
      ++way.counters.held;
      release += fate.held;
    } else {
      way.last_release = release;
    }
    if (fate.doubled) ++way.counters.doubled;
    for (int copy = 0; copy < (fate.doubled ? 2 : 1); ++copy)
      if (release <= now)
        send(way, bytes);
      else
        queue(way, release, bytes);
  }

  void queue(Way& way, Clock::time_point release, std::string_view bytes) {
    if (frames_.size() >= kQueueMax) {
      ++way.counters.not_sent;
      return;
    }
    frames_.push_back({release, ++number_, &way, std::string(bytes)});
    std::push_heap(frames_.begin(), frames_.end());
  }

  void send(Way& way, std::string_view bytes) {
    if (::send(way.to, bytes.data(), bytes.size(), MSG_DONTWAIT) !=
        static_cast<ssize_t>(bytes.size()))
      ++way.counters.not_sent;
  }

  /// The timer stands at the first frame's time.
  void arm() {
    if (frames_.empty() || armed_for_ == frames_.front().release) return;
    armed_for_ = frames_.front().release;
    timer_.expires_at(*armed_for_);
    timer_.async_wait([this](const boost::system::error_code& error) {
      if (!error) release_due();
    });
  }

  void release_due() {
    armed_for_.reset();
    const auto now = Clock::now();
    while (!frames_.empty() && frames_.front().release <= now) {
      std::pop_heap(frames_.begin(), frames_.end());
      send(*frames_.back().way, frames_.back().bytes);
      frames_.pop_back();
    }
    arm();
  }

  asio::io_context& io_;
  Impairment impairment_;
  asio::steady_timer timer_;
  std::optional<Clock::time_point> armed_for_;
  std::vector<Link> links_;
  std::vector<Frame> frames_;  ///< a heap
  std::uint64_t number_ = 0;
  std::vector<char> buffer_ = std::vector<char>(kFrameMax);
};

}  // namespace

int impair(const std::string& lab) {
  const auto state = read_state(lab);
  if (!state || state->impairment.empty())
    throw sys::NotFound("there is no lab \"" + lab + "\" with impaired links");
  const sys::EnterNetns inside(netns_name(lab, "fabric"));
  ::setpriority(PRIO_PROCESS, 0, kNice);  // as far as it is allowed
  const Impairment impairment = parse_impairment(state->impairment);
  asio::io_context io(1);
  Impairer impairer(io, impairment);
  for (const Node& node : state->nodes)
    if (impairment.concerns(node.name, node.role)) impairer.add(node.name);
  const control::StatusServer server(io, sys::RolePaths{lab, "fabric"}.socket(kImpairRole), [&] {
    return nlohmann::json{{"role", kImpairRole},       {"node", "fabric"},
                          {"pid", ::getpid()},         {"ready", true},
                          {"spec", state->impairment}, {"links", impairer.links()}};
  });
  asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&](const boost::system::error_code&, int) { io.stop(); });
  io.run();
  return 0;
}

}  // namespace tcpmig::lab
