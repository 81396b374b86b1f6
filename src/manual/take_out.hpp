// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <vector>

#include <tcpmig/snapshot.hpp>

namespace tcpmig::manual {

struct TakeOut {
  pid_t process = 0;
  int fd = -1;
  std::filesystem::path file;
  bool replace = false;           ///< a file that stands there may go
  bool look_only = false;         ///< write the file, and give the connection back
  std::chrono::seconds hold{60};  ///< how long its place is held (hold.hpp); 0: not at all
};

struct TakenOut {
  Snapshot snapshot;
  std::vector<pid_t> processes;         ///< all that had the connection open
  std::chrono::microseconds stopped{};  ///< how long they stood still
  pid_t holder = 0;                     ///< 0: nobody holds the place
};

/// Takes a TCP connection out of a process that knows nothing of it, into a file:
///
///   copy the descriptor -> stop every process that has it -> freeze -> write the file, to the disk -> take the place -> put the file in its place
///      -> end the old socket without a packet: the point of no return -> let the processes go on
///
/// A failure before that point, also kill -9, leaves the connection where it was; the processes notice that they stood still (sys/process_stop.hpp). After
/// it they see a connection that broke (conn/placeholder.hpp). Needs the right to trace the process, and CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN
/// (its network namespace may be another one). Throws sys::NotFound, sys::WrongSetup, sys::MissingFeature, tcpmig::Unsupported, std::system_error.
/// The calling process must have no other threads.
TakenOut take_out(const TakeOut& wanted);

}  // namespace tcpmig::manual
