// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "lab/stock_servers.hpp"

namespace tcpmig::lab {

struct DemoOptions {
  std::string name = "demo";  ///< of its lab
  config::Datapath datapath = config::Datapath::kAuto;
  /// server1, server2, ..: what each of them runs
  std::vector<ServerKind> servers{ServerKind::kMiniHttpd, ServerKind::kMiniHttpd,
                                  ServerKind::kNginx};
  unsigned requests = 1000;  ///< for the latency table
  bool json = false;         ///< one document at the end instead of text
  bool keep = false;         ///< leave the lab and its servers running at the end
  bool repair = false;  ///< show what there is on a kernel without the kfunc, also where it has it
};

/// `tcpmig lab demo`: makes a lab of its own, shows and checks, removes it. Returns the exit code.
int demo(const DemoOptions& options);

}  // namespace tcpmig::lab
