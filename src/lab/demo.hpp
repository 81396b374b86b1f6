// SPDX-License-Identifier: MIT
#pragma once
#include <vector>

#include "lab/stock_servers.hpp"

namespace tcpmig::lab {

struct DemoOptions {
  config::Datapath datapath = config::Datapath::kAuto;
  /// server1, server2, ..: what each of them runs
  std::vector<ServerKind> servers{ServerKind::kMiniHttpd, ServerKind::kMiniHttpd,
                                  ServerKind::kNginx};
  unsigned requests = 1000;  ///< for the latency table
  bool keep = false;         ///< leave the lab up at the end
  bool repair = false;  ///< show what there is on a kernel without the kfunc, also where it has it
};

/// `tcpmig lab demo`: makes a lab of its own, shows and checks, removes it. Returns the exit code.
int demo(const DemoOptions& options);

}  // namespace tcpmig::lab
