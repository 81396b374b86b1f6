// SPDX-License-Identifier: MIT
#include "agent/doors.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace tcpmig::agent {

bool Doors::is_open(const sys::Endpoint& listener, TimePoint now) {
  const auto found = deaf_.find(listener.port);
  if (found == deaf_.end()) return true;
  if (now >= found->second.next_try) try_again(found->second, listener, now);
  return !deaf_.contains(listener.port);
}

void Doors::try_again(Door& door, const sys::Endpoint& listener, TimePoint now) {
  door.next_try = now + kPause;
  door.ticket.reset();
  try {
    door.ticket = issue_ticket(config_, self_, listener);
    ++counters_.tickets;
  } catch (const std::system_error&) {  // nobody listens: whoever comes next may be another program
    found_open(listener.port);
  }
}

void Doors::found_deaf(std::uint16_t port, TimePoint now) {
  if (!deaf_.try_emplace(port, Door{now + kPause, std::nullopt}).second) return;
  spdlog::warn(
      "the program that listens on port {} accepts connections, but does not take migrated ones: "
      "start "
      "it under `tcpmig exec` (README.md says which programs it cannot help). Transfers to "
      "it are refused",
      port);
}

void Doors::found_open(std::uint16_t port) {
  if (deaf_.erase(port) > 0)
    spdlog::info("port {}: transfers are offered to its program again", port);
}

bool Doors::answered(const sys::Endpoint& from, const sys::Endpoint& to, int accepted) {
  const auto found = deaf_.find(to.port);
  if (found == deaf_.end() || !found->second.ticket) return false;
  const Ticket& ticket = *found->second.ticket;
  if (ticket.from != from || ticket.to != to || !in_same_namespace(ticket.fd.get(), accepted))
    return false;
  found_open(to.port);
  return true;
}

TimePoint Doors::due() const {
  TimePoint first = TimePoint::max();
  for (const auto& [port, door] : deaf_)
    if (door.ticket) first = std::min(first, door.next_try);
  return first;
}

void Doors::run(TimePoint now) {
  for (auto& [port, door] : deaf_) {
    if (!door.ticket || now < door.next_try) continue;
    door.ticket.reset();
    ++counters_.tickets_untaken;
  }
}

nlohmann::json Doors::status() const {
  nlohmann::json ports = nlohmann::json::array();
  for (const auto& [port, door] : deaf_) ports.push_back(port);
  return ports;
}

}  // namespace tcpmig::agent
