// SPDX-License-Identifier: MIT
#include "dispatcher/worker.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <chrono>
#include <cstring>
#include <stdexcept>

#include <spdlog/spdlog.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "dispatcher/accept_queue.hpp"
#include "dispatcher/connection.hpp"
#include "dispatcher/dispatcher.hpp"
#include "dispatcher/transfer.hpp"
#include "sys/check.hpp"

namespace tcpmig::dispatcher {
namespace asio = boost::asio;
using Descriptor = asio::posix::stream_descriptor;

namespace {

constexpr std::size_t kDatagramMax = 65536;
constexpr std::size_t kReadSize = 16 * 1024;
constexpr int kAcceptBatch = 16;  // then whatever else waits on this loop has its turn
constexpr int kDatagramBatch = 64;

void set_option(int fd, int level, int name, int value, const char* what) {
  sys::check(std::string("setsockopt ") + what,
             ::setsockopt(fd, level, name, &value, sizeof value));
}

asio::awaitable<void> wait_readable(Descriptor& descriptor) {
  co_await descriptor.async_wait(Descriptor::wait_read, asio::use_awaitable);
}

/// What goes wrong with one connection or message must not end the loop that takes them.
template <typename Step>
void guarded(Step step) {
  try {
    step();
  } catch (const std::exception& error) {
    spdlog::error("event loop: {}", error.what());
  }
}

FreezeKit::Options kit_options(const Shared& shared) {
  FreezeKit::Options options;
  options.cgroup_name = cgroup_name(shared.config, shared.self);
  return options;
}

}  // namespace

void log_end(const std::exception_ptr& error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const boost::system::system_error& end) {
    if (end.code() != asio::error::operation_aborted) spdlog::error("event loop: {}", end.what());
  } catch (const std::exception& end) {
    spdlog::error("event loop: {}", end.what());
  }
}

Worker::Worker(Shared& shared, std::uint8_t lane)
    : shared_(shared),
      lane_(lane),
      kit_(kit_options(shared)),
      sealer_(shared.secret, shared.self.id, lane),
      opener_(shared.secret, shared.config, shared.self.id),
      datagram_(kDatagramMax),
      read_buffer_(kReadSize) {
  if (lane == 0)
    for (const std::string& warning : kit_.warnings()) spdlog::warn("{}", warning);
  if (shared.network.switch4().is_set()) open_udp(shared.self.address4, udp4_);
  if (shared.network.switch6().is_set()) open_udp(shared.self.address6, udp6_);
  for (const config::Service& service : shared.config.services) {
    if (shared.one_loop_each && service.id % shared.workers != lane) continue;
    if (service.vip4.is_set() && udp4_)
      listen(service, config::vpa4(shared.config, shared.self.id, service.id));
    if (service.vip6.is_set() && udp6_)
      listen(service, config::vpa6(shared.config, shared.self.id, service.id));
  }
  if (kit_.captures_fd() >= 0) {
    captures_ =
        std::make_unique<Descriptor>(io_, sys::check("dup captures", ::dup(kit_.captures_fd())));
    asio::co_spawn(io_, captures_loop(), log_end);
  }
}

Worker::~Worker() = default;

void Worker::run() { io_.run(); }
void Worker::stop() {
  asio::post(io_, [this] { io_.stop(); });
}

void Worker::stop_accepting() {
  asio::post(io_, [this] {
    boost::system::error_code ignored;
    for (const auto& listener : listeners_) listener->close(ignored);
  });
}

void Worker::listen(const config::Service& service, const sys::Address& address) {
  const bool ipv4 = address.is_ipv4();
  sys::UniqueFd fd(sys::check(
      "socket", ::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
  set_option(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT");
  set_option(fd.get(), ipv4 ? IPPROTO_IP : IPPROTO_IPV6, ipv4 ? IP_FREEBIND : IPV6_FREEBIND, 1,
             "FREEBIND");
  const sys::Endpoint local{address, service.port};
  const auto [storage, length] = local.to_sockaddr();
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length) < 0)
    throw std::runtime_error(
        "service " + service.name + ": cannot listen on " + local.str() + ": " +
        std::strerror(errno) +
        (errno == EADDRINUSE
             ? ": another program listens on this port without SO_REUSEPORT; stop it "
               "or give the service another port"
             : ""));
  sys::check("listen on " + local.str(), ::listen(fd.get(), AcceptQueue::kLong));
  listeners_.push_back(std::make_unique<Descriptor>(io_, fd.release()));
  asio::co_spawn(io_, accept_loop(*listeners_.back(), service), log_end);
}

/// On a listener that listens already this changes its queues' bounds and nothing else, and cannot fail (__inet_listen_sk).
void Worker::set_backlog(Descriptor& listener, std::optional<int> backlog) {
  if (!backlog) return;
  if (*backlog != AcceptQueue::kLong) shared_.stats.add(Counter::kQueueShortened);
  ::listen(listener.native_handle(), *backlog);
}

asio::awaitable<void> Worker::accept_loop(Descriptor& listener, const config::Service& service) {
  asio::steady_timer pause(io_);
  AcceptQueue queue;
  int batch = 0;
  while (listener.is_open()) {
    sys::UniqueFd fd(
        ::accept4(listener.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) {
      const std::uint64_t now = monotonic_ns();
      shared_.stats.add(Counter::kAccepted);
      guarded([&] { asio::co_spawn(io_, serve(*this, std::move(fd), service, now), log_end); });
      set_backlog(listener, queue.taken(now));
      if (++batch % kAcceptBatch == 0) co_await asio::post(io_, asio::use_awaitable);
    } else if (errno == EAGAIN) {
      set_backlog(listener, queue.emptied());
      co_await wait_readable(listener);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      spdlog::warn("accept: {}: waiting for connections to end", std::strerror(errno));
      pause.expires_after(std::chrono::milliseconds(100));
      co_await pause.async_wait(asio::use_awaitable);
    }  // anything else is about that one connection (accept(2)): the next one
  }
}

void Worker::open_udp(const sys::Address& address, std::unique_ptr<Descriptor>& into) {
  const bool ipv4 = address.is_ipv4();
  sys::UniqueFd fd(sys::check(
      "socket", ::socket(address.family(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  if (ipv4)
    set_option(fd.get(), IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO, "IP_MTU_DISCOVER");
  else
    set_option(fd.get(), IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO, "IPV6_MTU_DISCOVER");
  set_option(fd.get(), SOL_SOCKET, SO_RCVBUF, 4 << 20, "SO_RCVBUF");
  const auto [storage, length] = sys::Endpoint{address, 0}.to_sockaddr();
  sys::check("bind to own address " + address.str(),
             ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length));
  into = std::make_unique<Descriptor>(io_, fd.release());
  asio::co_spawn(io_, receive_loop(*into), log_end);
}

asio::awaitable<void> Worker::receive_loop(Descriptor& socket) {
  for (int batch = 1;; ++batch) {
    const ssize_t n =
        ::recv(socket.native_handle(), datagram_.data(), datagram_.size(), MSG_DONTWAIT);
    if (n >= 0)
      guarded([&] { take_message(std::span(datagram_).first(static_cast<std::size_t>(n))); });
    else if (errno == EAGAIN)
      co_await wait_readable(socket);
    // else: an ICMP error about something we sent: like a lost datagram
    if (batch % kDatagramBatch == 0) co_await asio::post(io_, asio::use_awaitable);
  }
}

asio::awaitable<void> Worker::captures_loop() {
  for (;;) {
    co_await wait_readable(*captures_);
    guarded([&] { consume_captures(); });
  }
}

void Worker::take_message(std::span<const std::byte> datagram) {
  const auto message = opener_.open(datagram);
  if (!message) {
    shared_.stats.add(Counter::kBadMessages);
    spdlog::debug("control datagram refused: {}", control::to_string(message.error()));
    return;
  }
  const abi::wire_header& header = message->header;
  const Flow flow{{sys::Address(header.client), ntohs(header.client_port)}, ntohs(header.service)};
  const auto found = by_flow_.find(flow);
  const auto transfer = found == by_flow_.end() ? nullptr : found->second.lock();
  if (transfer && header.type == abi::WIRE_SEGMENT)
    transfer->take_handed_back(*message);
  else if (transfer)
    transfer->take_answer(*message);
  else
    shared_.stats.add(Counter::kLateAnswers);
}

void Worker::send(control::Outgoing& message) {
  sealer_.seal(message);
  const bool ipv4 = message.header.family == abi::FAMILY_IPV4;
  const bool to_switch =
      message.header.type == abi::WIRE_COMMIT || message.header.type == abi::WIRE_DATA;
  sys::Endpoint to = shared_.network.switch_for(sys::Address(message.header.client));
  if (!to_switch) {
    const config::Node* node =
        shared_.config.find_node(config::NodeId{ntohs(message.header.target)});
    if (node == nullptr) return;
    to.address = ipv4 ? node->address4 : node->address6;
  }
  auto [storage, length] = to.to_sockaddr();
  std::array<iovec, 2> pieces{
      {{&message.header, sizeof message.header},
       {const_cast<std::byte*>(message.payload.data()), message.payload.size()}}};
  msghdr header{};
  header.msg_name = &storage;
  header.msg_namelen = length;
  header.msg_iov = pieces.data();
  header.msg_iovlen = pieces.size();
  const auto& socket = ipv4 ? udp4_ : udp6_;
  if (!socket || ::sendmsg(socket->native_handle(), &header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
    return;
  const int error = errno;
  shared_.stats.add(Counter::kSendFailed);
  if (error == EMSGSIZE && !told_path_mtu_) {
    told_path_mtu_ = true;
    spdlog::warn("the path to {} does not take datagrams of {} bytes: transfers need an MTU of {}",
                 to.str(), sizeof message.header + message.payload.size(),
                 static_cast<int>(abi::CONTROL_PATH_MTU));
  }
  spdlog::debug("control datagram to {} not sent: {}", to.str(), std::strerror(error));
}

void Worker::enter(const std::shared_ptr<Transfer>& transfer) {
  by_flow_[{transfer->client(), transfer->service_id()}] = transfer;
  by_cookie_[transfer->cookie()] = transfer;
}

void Worker::leave(const Transfer& transfer) {
  // The client may have come back with the same port: then the entry is its new connection's.
  const auto found = by_flow_.find({transfer.client(), transfer.service_id()});
  if (found != by_flow_.end()) {
    const auto present = found->second.lock();
    if (!present || present.get() == &transfer) by_flow_.erase(found);
  }
  by_cookie_.erase(transfer.cookie());
}

void Worker::consume_captures() {
  kit_.consume_captures([this](CapturedSegment segment) {
    const auto found = by_cookie_.find(segment.cookie);
    const auto transfer = found == by_cookie_.end() ? nullptr : found->second.lock();
    if (transfer)
      transfer->take_capture(std::move(segment));
    else
      shared_.stats.add(Counter::kCapturesLost);
  });
}

}  // namespace tcpmig::dispatcher
