// SPDX-License-Identifier: MIT
#include "sys/waiter.hpp"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace tcpmig::sys {
namespace asio = boost::asio;

Waiter::Waiter(asio::io_context& io, UniqueFd fd)
    : descriptor_(std::make_shared<Descriptor>(io)), timer_(io) {
  descriptor_->assign(fd.get());  // if it throws, fd is still the owner
  static_cast<void>(fd.release());
}

void Waiter::expire_after(std::chrono::milliseconds time) {
  timer_.expires_after(time);
  timer_.async_wait(
      [weak = std::weak_ptr(descriptor_), expired = expired_](boost::system::error_code error) {
        const auto descriptor = weak.lock();
        if (error || !descriptor) return;
        *expired = true;
        // It may have been released already, in the same turn of the loop: cancel() without a code would throw.
        boost::system::error_code ignored;
        descriptor->cancel(ignored);
      });
}

asio::awaitable<bool> Waiter::wait(Descriptor::wait_type what) {
  boost::system::error_code error;
  if (!*expired_)
    co_await descriptor_->async_wait(what, asio::redirect_error(asio::use_awaitable, error));
  co_return !*expired_ && !error;
}

asio::awaitable<bool> Waiter::readable() { return wait(Descriptor::wait_read); }
asio::awaitable<bool> Waiter::writable() { return wait(Descriptor::wait_write); }

UniqueFd Waiter::release() {
  timer_.cancel();
  return UniqueFd(descriptor_->release());
}

}  // namespace tcpmig::sys
