// SPDX-License-Identifier: MIT
#pragma once
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <optional>

#include "control/heartbeat.hpp"
#include "control/message.hpp"
#include "dispatcher/shared.hpp"

namespace tcpmig::dispatcher {

/// The dispatcher's own control port, served by the main loop: takes the servers' reports (LOAD), and tells the switch that this node
/// is alive (HEARTBEAT). Transfers have sockets of their own, one a worker.
class ControlPort {
 public:
  /// Message numbers of this port; those below are the workers'.
  static constexpr std::uint8_t kLane = abi::MAX_LANES - 1;

  /// Binds. Throws std::runtime_error with a sentence. What it starts on `io` refers to it.
  ControlPort(boost::asio::io_context& io, Shared& shared);

  /// Until then the heartbeats say that this node takes no new connections: it does not listen yet. Sends one.
  void serve();
  /// From now on the heartbeats say that this node takes no new connections; sends one.
  void drain();
  [[nodiscard]] bool switch_heard() const;

 private:
  using Descriptor = boost::asio::posix::stream_descriptor;
  void bind(boost::asio::io_context& io, const sys::Address& address,
            std::optional<Descriptor>& socket);
  boost::asio::awaitable<void> listen(Descriptor& socket);
  boost::asio::awaitable<void> beat_on();
  void take(const control::Incoming& message);
  void beat();

  Shared& shared_;
  control::Opener opener_;
  control::Sealer sealer_;
  control::Heartbeat heartbeat_;
  std::optional<Descriptor> socket4_;
  std::optional<Descriptor> socket6_;
  boost::asio::steady_timer timer_;
  bool draining_ = true;
};

}  // namespace tcpmig::dispatcher
