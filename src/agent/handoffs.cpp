// SPDX-License-Identifier: MIT
#include "agent/handoffs.hpp"

#include <arpa/inet.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <stdexcept>
#include <tcpmig/resume.hpp>

#include "conn/repair_mode.hpp"
#include "sys/check.hpp"

namespace tcpmig::agent {
namespace {

sys::UniqueFd connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    throw std::system_error(ENAMETOOLONG, std::generic_category(), path);
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  sys::UniqueFd fd(
      sys::check("socket", ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
  sys::check("connect " + path,
             ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  return fd;
}

/// In repair mode a close is silent: the client hears nothing, and the flow may be opened elsewhere.
void close_silently(sys::UniqueFd fd) noexcept {
  try {
    conn::enter_repair(fd.get());
  } catch (const std::system_error&) {  // what could be restored can be taken into repair again
  }
}

}  // namespace

Handoffs::Handoffs(const config::Config& config, const config::Node& self, Deliver deliver,
                   Counters& counters)
    : deliver_(std::move(deliver)), counters_(counters) {
  for (const config::Pool& pool : config.pools)
    for (const config::PoolServer& server : pool.servers)
      if (server.node_id == self.id && !server.handoff.empty())
        paths_[server.port] = server.handoff;
}

int Handoffs::connection(std::uint16_t port) {
  sys::UniqueFd& kept = connections_[port];
  char byte = 0;
  // The program ended meanwhile: an orderly end reads as 0 bytes.
  if (kept && ::recv(kept.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) kept.reset();
  if (!kept) kept = connect_to(paths_.at(port));
  return kept.get();
}

void Handoffs::give(std::uint16_t port, int fd, const std::string& note) {
  try {
    send_descriptor(connection(port), fd, note);
  } catch (const std::system_error&) {
    connections_.erase(port);
    throw;
  }
}

std::optional<Refusal> Handoffs::open(const Arrival& arrival) {
  const std::uint16_t port = ntohs(arrival.commit.target_port);
  const sys::Endpoint local = local_of(arrival.flow, port);
  try {
    connection(port);
  } catch (const std::system_error& error) {
    return Refusal{abi::REASON_NO_LISTENER, static_cast<std::uint32_t>(error.code().value())};
  }
  const auto snapshot = control::to_snapshot(arrival.commit, arrival.received, local);
  if (!snapshot) return Refusal{abi::REASON_INCOMPLETE};
  sys::UniqueFd fd;
  try {
    fd = repair_resume(*snapshot, local, deliver_);
    give(port, fd.get(), client_of(arrival.flow).str());
    ++counters_.handed_over;
    return std::nullopt;
  } catch (const std::system_error& error) {
    if (fd) close_silently(std::move(fd));
    return Refusal{abi::REASON_KERNEL_REFUSED, static_cast<std::uint32_t>(error.code().value())};
  } catch (const std::exception& error) {  // what this kernel cannot restore
    spdlog::warn("{}: {}", client_of(arrival.flow).str(), error.what());
    if (fd) close_silently(std::move(fd));
    return Refusal{abi::REASON_KERNEL_REFUSED, ENOTSUP};
  }
}

}  // namespace tcpmig::agent
