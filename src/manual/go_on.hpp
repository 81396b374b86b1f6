// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <tcpmig/snapshot.hpp>

#include "sys/address.hpp"

namespace tcpmig::manual {

/// Another address for this end of the connection, as "ADDR", "ADDR:PORT", "V6ADDR" or "[V6ADDR]:PORT" says it.
struct LocalEnd {
  sys::Address address;
  std::optional<std::uint16_t> port;  ///< nullopt: that of the snapshot
};
/// nullopt: not one of these forms.
std::optional<LocalEnd> parse_local(const std::string& text);

struct GoOn {
  std::filesystem::path file;
  std::optional<LocalEnd> local;
  std::optional<int> fd;             ///< where the program finds the connection; nullopt: 0 and 1
  std::string netns;                 ///< a name of `ip netns`; empty: this one
  std::vector<std::string> command;  ///< the program and its arguments, not empty
};

/// Goes on with a frozen connection, by repair resume, in the place of this process: executes a program that has the connection, blocking, as its standard
/// input and output (like inetd), or as one descriptor. The program is found and executed on trial first (a child that the kernel stops
/// before its first instruction, and that is killed), so that nothing is sent for a program that cannot run. The environment gets REMOTE_ADDR and
/// REMOTE_PORT, and for descriptor 3 LISTEN_FDS and LISTEN_PID (systemd.socket(5), Accept=yes; sd_listen_fds(3)).
/// Comes back by exception only: sys::NotFound, sys::WrongSetup, sys::MissingFeature, std::system_error; the connection is then closed here without a
/// packet, and may be resumed again.
[[noreturn]] void go_on(const GoOn& wanted);

}  // namespace tcpmig::manual
