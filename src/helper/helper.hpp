// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

/// `tcpmig repair-helper`: does, with CAP_NET_ADMIN, what the library may not do in a process that has no rights (conn/repair_request.hpp).
namespace tcpmig::helper {

struct Options {
  std::filesystem::path socket = "/run/tcpmig/repair.sock";
  std::string group;                      ///< whose members may ask; empty: none
  std::vector<std::string> users;         ///< who may ask besides root
  bool allow_mark = false;                ///< SO_MARK
  bool allow_priority = false;            ///< SO_PRIORITY above 6
  std::uint32_t most_buffer = 16U << 20;  ///< bytes, of SO_SNDBUFFORCE and SO_RCVBUFFORCE
};

/// Listens until SIGTERM or SIGINT, then removes its socket. For sockets of the network namespace that it is started in. It keeps one capability,
/// CAP_NET_ADMIN, and the raw sockets that it has opened before. Throws sys::AlreadyRunning, sys::WrongSetup (the path, a name), sys::MissingFeature
/// (no CAP_NET_ADMIN), std::system_error.
void run(const Options& options);

}  // namespace tcpmig::helper
