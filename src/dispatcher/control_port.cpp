// SPDX-License-Identifier: MIT
#include "dispatcher/control_port.hpp"

#include <arpa/inet.h>
#include <endian.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "sys/check.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::dispatcher {
namespace asio = boost::asio;
namespace {

sys::UniqueFd control_socket(const sys::Address& address, std::uint16_t port) {
  sys::UniqueFd fd(sys::check(
      "socket", ::socket(address.family(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  const sys::Endpoint local{address, port};
  const auto [storage, length] = local.to_sockaddr();
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length) < 0)
    throw std::runtime_error(
        "control port " + local.str() + ": " + std::strerror(errno) +
        (errno == EADDRINUSE ? ": another program uses it; stop that or change cluster.control_port"
                             : ""));
  return fd;
}

}  // namespace

ControlPort::ControlPort(asio::io_context& io, Shared& shared)
    : shared_(shared),
      opener_(shared.secret, shared.config, shared.self.id),
      sealer_(shared.secret, shared.self.id, kLane),
      heartbeat_(shared.network),
      timer_(io) {
  bind(io, shared.self.address4, socket4_);
  bind(io, shared.self.address6, socket6_);
  asio::co_spawn(io, beat_on(), asio::detached);
}

void ControlPort::bind(asio::io_context& io, const sys::Address& address,
                       std::optional<Descriptor>& socket) {
  if (!address.is_set()) return;
  socket.emplace(io, control_socket(address, shared_.config.control_port).release());
  asio::co_spawn(io, listen(*socket), asio::detached);
}

asio::awaitable<void> ControlPort::listen(Descriptor& socket) {
  std::array<std::byte, 2048> datagram{};
  for (;;) {
    const ssize_t n =
        ::recv(socket.native_handle(), datagram.data(), datagram.size(), MSG_DONTWAIT);
    if (n < 0) {
      co_await socket.async_wait(Descriptor::wait_read, asio::use_awaitable);
      continue;
    }
    const auto message = opener_.open(std::span(datagram).first(static_cast<std::size_t>(n)));
    if (message)
      take(*message);
    else
      shared_.stats.add(Counter::kBadMessages);
  }
}

void ControlPort::take(const control::Incoming& message) {
  const abi::wire_header& header = message.header;
  if (header.type == abi::WIRE_HEARTBEAT) {
    heartbeat_.answered(header, std::chrono::steady_clock::now());
    shared_.switch_boot.store(heartbeat_.boot(), std::memory_order_relaxed);
  } else if (header.type == abi::WIRE_LOAD &&
             !shared_.loads.report(ntohs(header.sender), be64toh(header.sequence),
                                   ntohl(header.detail)))
    shared_.stats.add(Counter::kStaleLoads);
}

asio::awaitable<void> ControlPort::beat_on() {
  for (;;) {
    beat();
    timer_.expires_after(control::Heartbeat::kPause);
    co_await timer_.async_wait(asio::use_awaitable);
  }
}

/// One that is lost matters little: the next one comes soon.
void ControlPort::beat() {
  const sys::Endpoint to = heartbeat_.to();
  auto& socket = to.address.is_ipv4() ? socket4_ : socket6_;
  if (!to.address.is_set() || !socket) return;
  control::Outgoing message = heartbeat_.message(draining_);
  sealer_.seal(message);
  const auto [address, length] = to.to_sockaddr();
  ::sendto(socket->native_handle(), &message.header, sizeof message.header,
           MSG_DONTWAIT | MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address), length);
}

void ControlPort::serve() {
  draining_ = false;
  beat();
}

void ControlPort::drain() {
  draining_ = true;
  beat();
}

bool ControlPort::switch_heard() const {
  return heartbeat_.heard(std::chrono::steady_clock::now());
}

}  // namespace tcpmig::dispatcher
