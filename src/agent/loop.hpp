// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "agent/flow.hpp"

namespace tcpmig::agent {

/// What an event loop has to do.
struct LoopWork {
  struct Watch {
    int fd = -1;  ///< not owned
    std::function<void()> ready;
  };
  std::vector<Watch> watches;
  std::function<TimePoint()> due;  ///< when `run` wants to be called next
  std::function<void(TimePoint)> run;
  std::function<nlohmann::json()> status;  ///< answered on `status_socket`
  std::filesystem::path status_socket;
};

/// One thread, until SIGTERM or SIGINT. An exception out of one step is logged, and the next step is done. (A file of its own, because
/// Asio brings <netinet/tcp.h>, which does not go together with the kernel's <linux/tcp.h>.)
void run_loop(const LoopWork& work);

}  // namespace tcpmig::agent
