// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <map>
#include <nlohmann/json_fwd.hpp>

#include "agent/counters.hpp"
#include "agent/flow.hpp"
#include "agent/tickets.hpp"

namespace tcpmig::agent {

/// What is known of the listeners that tickets go to: whether their programs ask with them. A port whose program has accepted a ticket and
/// kept it is deaf: transfers to it are refused at once, so that clients need not wait for the same discovery again and again.
/// While there are transfers for it, it is tried again each second, with a ticket that nobody waits for.
class Doors {
 public:
  static constexpr std::chrono::milliseconds kPause{1'000};

  Doors(const config::Config& config, const config::Node& self, Counters& counters)
      : config_(config), self_(self), counters_(counters) {}

  /// A transfer for this listener. False: it is deaf; it may be tried now, by a ticket of its own.
  bool is_open(const sys::Endpoint& listener, TimePoint now);
  /// A ticket was accepted, and nobody asked with it.
  void found_deaf(std::uint16_t port, TimePoint now);
  /// Somebody asked with a ticket; or the program has gone, and the next one may be another.
  void found_open(std::uint16_t port);
  /// Was this one of those that nobody waits for? It is ended then.
  bool answered(const sys::Endpoint& from, const sys::Endpoint& to, int accepted);

  [[nodiscard]] TimePoint due() const;
  void run(TimePoint now);
  /// The ports that are deaf.
  [[nodiscard]] nlohmann::json status() const;

 private:
  struct Door {
    TimePoint next_try;
    std::optional<Ticket> ticket;
  };
  void try_again(Door& door, const sys::Endpoint& listener, TimePoint now);

  const config::Config& config_;
  const config::Node& self_;
  Counters& counters_;
  std::map<std::uint16_t, Door> deaf_;
};

}  // namespace tcpmig::agent
