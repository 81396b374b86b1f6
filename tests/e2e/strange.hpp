// SPDX-License-Identifier: MIT
#pragma once
#include "e2e/raw_client.hpp"

namespace tcpmig::e2e {

/// A lab with one server behind the service (nginx on port 80, unless the test starts its own), and
/// raw clients before it. A lab costs a second: one serves many cases.
struct Strange {
  explicit Strange(const lab::Options& options = {.servers = 1}, const std::string& config = {},
                   bool with_nginx = true)
      : lab(options, config) {
    small = lab.add_file("1k", 1024);
    large = lab.add_file("300k", 300 << 10);
    if (with_nginx) lab.start_server(lab::ServerKind::kNginx, "server1");
    network.emplace(lab);
  }
  [[nodiscard]] std::uint64_t switched(const std::string& counter) const {
    return lab::role_number(*lab, "switch1", counter);
  }
  [[nodiscard]] std::uint64_t committed() const { return switched("committed"); }
  /// What the dispatcher has counted, in one of its groups of counters ("relayed", "freeze_refused", ..).
  [[nodiscard]] std::uint64_t dispatcher(const std::string& group, const std::string& name) const {
    const auto status = lab::role_status(*lab, "dispatcher1");
    return lab::find_number(status.value(group, nlohmann::json::object()), name).value_or(0);
  }
  [[nodiscard]] std::uint64_t relayed(const std::string& reason) const {
    return dispatcher("relayed", reason);
  }

  TestLab lab;
  lab::Payload small, large;
  std::optional<RawNetwork> network;
};

/// The answer to a request for this file, whole and right.
inline bool is_file(const Response& response, const lab::Payload& file) {
  return response.status == 200 && response.complete &&
         lab::sha256_of_bytes(response.body) == file.sha256;
}

}  // namespace tcpmig::e2e
