// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>

#include "sys/unique_fd.hpp"

namespace tcpmig::sys {

/// A descriptor, and the one deadline of what is being waited for on it.
class Waiter {
 public:
  /// Throws where epoll takes no more descriptors.
  Waiter(boost::asio::io_context& io, UniqueFd fd);

  void expire_after(std::chrono::milliseconds time);
  [[nodiscard]] bool expired() const { return *expired_; }
  [[nodiscard]] int fd() const { return descriptor_->native_handle(); }
  /// False: the deadline has passed.
  boost::asio::awaitable<bool> readable();
  boost::asio::awaitable<bool> writable();
  UniqueFd release();

 private:
  using Descriptor = boost::asio::posix::stream_descriptor;
  boost::asio::awaitable<bool> wait(Descriptor::wait_type what);

  std::shared_ptr<Descriptor> descriptor_;  // the timer may outlive it
  boost::asio::steady_timer timer_;
  std::shared_ptr<bool> expired_ = std::make_shared<bool>(false);
};

}  // namespace tcpmig::sys
