// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include <tcpmig/freeze.hpp>

#include "control/answer_time.hpp"
#include "control/message.hpp"
#include "dispatcher/shared.hpp"

namespace tcpmig::dispatcher {

class Transfer;

/// The end of a coroutine. An exception is a bug or a shutdown: said once, never silently.
void log_end(const std::exception_ptr& error);

/// One event loop: its own listeners (SO_REUSEPORT), its own UDP sockets (answers to a transfer come back to the loop that sent it), its
/// own lock and dump programs. Nothing in it is touched by another thread, except through post().
class Worker {
 public:
  Worker(Shared& shared, std::uint8_t lane);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void run();             ///< until stop()
  void stop_accepting();  ///< thread-safe; what is under way goes on
  void stop();            ///< thread-safe; after what has been posted before
  [[nodiscard]] Shared& shared() noexcept { return shared_; }
  [[nodiscard]] boost::asio::io_context& io() noexcept { return io_; }
  [[nodiscard]] const FreezeKit& kit() const noexcept { return kit_; }
  [[nodiscard]] std::uint8_t lane() const noexcept { return lane_; }
  /// Where anyone on this loop may read into before it suspends: a client that is silent costs no buffer.
  [[nodiscard]] std::span<std::byte> read_buffer() noexcept { return read_buffer_; }

  /// Numbers, tags and sends: COMMIT and DATA to the switch, everything else to the node `header.target`.
  /// A send that fails is like a datagram that is lost: repeats mend it.
  void send(control::Outgoing& message);

  /// How long the server with this node id takes to answer this loop: by it its first COMMIT is repeated.
  [[nodiscard]] control::AnswerTime& answer_time(std::uint16_t node) {
    return answer_times_.at(node);
  }

  // Who gets the answers about a flow, and the captures of a frozen socket. Weak: a transfer that has ended gets nothing.
  void enter(const std::shared_ptr<Transfer>& transfer);
  void leave(const Transfer& transfer);
  void consume_captures();

 private:
  using Flow = std::pair<sys::Endpoint, std::uint16_t>;  // client, service

  void listen(const config::Service& service, const sys::Address& address);
  boost::asio::awaitable<void> accept_loop(boost::asio::posix::stream_descriptor& listener,
                                           const config::Service& service);
  void set_backlog(boost::asio::posix::stream_descriptor& listener, std::optional<int> backlog);
  boost::asio::awaitable<void> receive_loop(boost::asio::posix::stream_descriptor& socket);
  boost::asio::awaitable<void> captures_loop();
  void take_message(std::span<const std::byte> datagram);
  void open_udp(const sys::Address& address,
                std::unique_ptr<boost::asio::posix::stream_descriptor>& into);

  Shared& shared_;
  std::uint8_t lane_;
  boost::asio::io_context io_{1};
  FreezeKit kit_;
  control::Sealer sealer_;
  control::Opener opener_;
  std::vector<std::byte> datagram_;
  std::vector<std::byte> read_buffer_;
  std::vector<control::AnswerTime> answer_times_ = std::vector<control::AnswerTime>(abi::MAX_NODES);
  bool told_path_mtu_ = false;
  std::unique_ptr<boost::asio::posix::stream_descriptor> udp4_;
  std::unique_ptr<boost::asio::posix::stream_descriptor> udp6_;
  std::unique_ptr<boost::asio::posix::stream_descriptor> captures_;
  std::vector<std::unique_ptr<boost::asio::posix::stream_descriptor>> listeners_;
  std::map<Flow, std::weak_ptr<Transfer>> by_flow_;
  std::unordered_map<std::uint64_t, std::weak_ptr<Transfer>> by_cookie_;
};

}  // namespace tcpmig::dispatcher
