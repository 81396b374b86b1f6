// SPDX-License-Identifier: MIT
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "stage.hpp"

namespace tcpmig::bench {

/// A lab with one server, which runs nginx at port 80 and has a file /1k.
class OneServer {
 public:
  /// `services`: configuration of them; pools are made here: one, "web". `workers` of nginx; 0: one for each core.
  OneServer(const Plan& plan, const std::string& name, unsigned clients,
            const std::string& services, unsigned workers = 0);

  const lab::Lab& operator*() const noexcept { return *lab_; }
  const lab::Lab* operator->() const noexcept { return &*lab_; }
  [[nodiscard]] std::vector<sys::Endpoint> vips() const;
  [[nodiscard]] ClientPorts& ports() noexcept { return ports_; }

 private:
  lab::TemporaryDirectory directory_{"tcpmig-bench"};
  BenchLab lab_;
  ClientPorts ports_;  ///< of client1
  std::optional<Background> nginx_;
};

/// A service of port 80 whose requests all go to the pool "web".
std::string web_service(unsigned id, const std::string& vip);

}  // namespace tcpmig::bench
