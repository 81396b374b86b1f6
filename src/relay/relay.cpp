// SPDX-License-Identifier: MIT
#include "relay/relay.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "sys/check.hpp"
#include "sys/waiter.hpp"

namespace tcpmig::relay {
namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;
using Descriptor = asio::posix::stream_descriptor;

namespace {

constexpr std::size_t kSplice = 1 << 20;  // as much as the pipe takes

/// The pipe through which one direction runs.
struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    sys::check("pipe2", ::pipe2(ends.data(), O_NONBLOCK | O_CLOEXEC));
    out.reset(ends[0]);
    in.reset(ends[1]);
  }
  sys::UniqueFd out, in;
};

/// Two sockets and what runs between them. Lives until the last of its coroutines has ended.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(asio::io_context& io, sys::UniqueFd client, sys::UniqueFd server,
          std::vector<std::byte> opening, std::chrono::milliseconds idle)
      : io_(io),
        client_(io),
        server_(io),
        opening_(std::move(opening)),
        idle_(idle),
        watch_(io),
        ended_(io, Clock::time_point::max()) {
    assign(client_, client);
    assign(server_, server);
  }

  asio::awaitable<Traffic> run() {
    const auto self = shared_from_this();
    asio::co_spawn(io_, [self] { return self->to_server(); }, done());
    asio::co_spawn(io_, [self] { return self->to_client(); }, done());
    asio::co_spawn(io_, [self] { return self->watch(); }, [self](const std::exception_ptr&) {});
    boost::system::error_code ignored;  // cancelled by the last direction
    co_await ended_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    co_return traffic_;
  }

 private:
  static void assign(Descriptor& descriptor, sys::UniqueFd& fd) {
    descriptor.assign(fd.get());
    static_cast<void>(fd.release());
  }

  /// One direction has ended, well or by an error: an error ends the other as well.
  std::function<void(const std::exception_ptr&)> done() {
    return [self = shared_from_this()](const std::exception_ptr& error) {
      if (error) self->reset();
      if (--self->running_ > 0) return;
      boost::system::error_code ignored;
      self->client_.close(ignored);
      self->server_.close(ignored);
      self->watch_.cancel();
      self->ended_.cancel();
    };
  }

  /// Both sides get a RST.
  void reset() {
    const linger hard{.l_onoff = 1, .l_linger = 0};
    for (Descriptor* descriptor : {&client_, &server_}) {
      if (!descriptor->is_open()) continue;
      ::setsockopt(descriptor->native_handle(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
      boost::system::error_code ignored;
      descriptor->close(ignored);
    }
  }

  asio::awaitable<void> watch() {
    while (running_ > 0 && Clock::now() < last_ + idle_) {
      boost::system::error_code ignored;
      watch_.expires_at(last_ + idle_);
      co_await watch_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
    if (running_ > 0) reset();
  }

  /// A server that takes no more may still be answering: that ends this direction only.
  asio::awaitable<void> to_server() {
    for (std::size_t sent = 0; sent < opening_.size();) {
      const ssize_t n = ::send(server_.native_handle(), opening_.data() + sent,
                               opening_.size() - sent, MSG_NOSIGNAL);
      if (n > 0)
        sent += static_cast<std::size_t>(n);
      else if (!co_await ready_again(server_, Descriptor::wait_write))
        co_return;
    }
    traffic_.to_server += std::exchange(opening_, {}).size();
    co_await pump(client_, server_, traffic_.to_server);
  }

  asio::awaitable<void> to_client() {
    const bool client_takes = co_await pump(server_, client_, traffic_.to_client);
    if (!client_takes) reset();
  }

  /// After a call that has failed with errno. False: it will not get better.
  static asio::awaitable<bool> ready_again(Descriptor& descriptor, Descriptor::wait_type what) {
    if (errno != EAGAIN && errno != EINTR) co_return false;
    co_await descriptor.async_wait(what, asio::use_awaitable);
    co_return true;
  }

  /// Until `from` ends; throws when it is reset. False: `to` takes no more.
  asio::awaitable<bool> pump(Descriptor& from, Descriptor& to, std::uint64_t& count) {
    const Pipe pipe;
    for (;;) {
      const ssize_t taken = ::splice(from.native_handle(), nullptr, pipe.in.get(), nullptr, kSplice,
                                     SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
      if (taken == 0) break;
      if (taken < 0) {
        if (!co_await ready_again(from, Descriptor::wait_read))
          throw std::runtime_error("reset by its peer");
        continue;
      }
      last_ = Clock::now();
      if (!co_await empty(pipe, static_cast<std::size_t>(taken), to)) co_return false;
      count += static_cast<std::uint64_t>(taken);
    }
    co_await established(to);
    ::shutdown(to.native_handle(), SHUT_WR);
    co_return true;
  }

  /// A socket that TCP Fast Open has made takes data before the client's ACK has come, but the kernel ignores a shutdown until then (net/ipv4/tcp.c,
  /// tcp_shutdown): the client would never see the end. The state does not last: the kernel ends it when its SYN-ACK is not answered.
  static asio::awaitable<void> established(Descriptor& socket) {
    constexpr std::chrono::milliseconds kPause{2};
    asio::steady_timer timer(socket.get_executor());
    for (;;) {
      ::tcp_info info{};
      socklen_t length = sizeof info;
      if (::getsockopt(socket.native_handle(), IPPROTO_TCP, TCP_INFO, &info, &length) < 0 ||
          info.tcpi_state != TCP_SYN_RECV)
        co_return;
      timer.expires_after(kPause);
      co_await timer.async_wait(asio::use_awaitable);
    }
  }

  static asio::awaitable<bool> empty(const Pipe& pipe, std::size_t left, Descriptor& to) {
    while (left > 0) {
      const ssize_t given = ::splice(pipe.out.get(), nullptr, to.native_handle(), nullptr, left,
                                     SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
      if (given > 0)
        left -= static_cast<std::size_t>(given);
      else if (!co_await ready_again(to, Descriptor::wait_write))
        co_return false;
    }
    co_return true;
  }

  asio::io_context& io_;
  Descriptor client_;
  Descriptor server_;
  std::vector<std::byte> opening_;
  std::chrono::milliseconds idle_;
  asio::steady_timer watch_;
  asio::steady_timer ended_;
  Clock::time_point last_ = Clock::now();
  Traffic traffic_;
  int running_ = 2;
};

/// The dispatcher keeps the receive buffer of a connection that it may move small (bpf/window.bpf.c); this one stays:
/// the kernel may tune it again.
void unlock_buffers(int fd) {
  const int none = 0;
  ::setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &none, sizeof none);  // absent before Linux 5.14
}

}  // namespace

asio::awaitable<sys::UniqueFd> connect(asio::io_context& io, sys::Endpoint to,
                                       std::chrono::milliseconds limit) {
  const auto [address, length] = to.to_sockaddr();
  sys::UniqueFd fd(::socket(to.address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) co_return sys::UniqueFd();
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0) co_return fd;
  if (errno != EINPROGRESS) co_return sys::UniqueFd();
  sys::Waiter waiter(io, std::move(fd));
  waiter.expire_after(limit);
  const bool writable = co_await waiter.writable();
  fd = waiter.release();
  int outcome = 0;
  socklen_t size = sizeof outcome;
  if (!writable || ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &outcome, &size) < 0 ||
      outcome != 0)
    fd.reset();
  co_return fd;
}

asio::awaitable<Traffic> relay(asio::io_context& io, sys::UniqueFd client, sys::UniqueFd server,
                               std::vector<std::byte> opening, std::chrono::milliseconds idle) {
  unlock_buffers(client.get());
  const int on = 1;
  for (const int fd : {client.get(), server.get()})
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const auto session =
      std::make_shared<Session>(io, std::move(client), std::move(server), std::move(opening), idle);
  co_return co_await session->run();
}

}  // namespace tcpmig::relay
