// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lab/lab.hpp"

/// The moments of transfers, by the stamps that the dispatcher keeps.
namespace tcpmig::bench {

/// A dispatcher keeps those of its last 64 transfers: so many requests may be made between two looks.
inline constexpr unsigned kKeptStamps = 60;

/// In the order of their time. "accepted" is from a server that looks (Acceptor).
inline constexpr std::pair<const char*, const char*> kMoments[] = {
    {"frozen", "frozen"},
    {"sent", "sent"},
    {"switch_committed", "committed"},
    {"server_received", "at_server"},
    {"resumed", "resumed"},
    {"accepted", "accepted"},
    {"confirmed", "confirmed"}};

/// Microseconds since the head was complete, which is when the freeze begins; and "opening": from "at_server" to "resumed".
using Phases = std::map<std::string, std::vector<double>>;

/// Adds those of the clients in `accepted` (CLOCK_MONOTONIC ns, by "10.0.1.2:4711"). Throws when the dispatcher knows less than half of them.
void take_stamps(const lab::Lab& lab, const std::map<std::string, std::uint64_t>& accepted,
                 Phases& phases);

}  // namespace tcpmig::bench
