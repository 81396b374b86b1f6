// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "config/config.hpp"

namespace tcpmig::config_samples {

/// The smallest file with everything in it. Every line differs from every other, so that a test can
/// name a line by its text.
inline const std::string kGood = R"([cluster]
secret_file = "secret"
control_port = 7421
[[switch]]
name = "sw"
clients = ["eth0"]
nodes = ["eth1", "eth2"]
[[node]] # d1
name = "d1"
id = 1
role = "dispatcher"
address4 = "10.0.2.2"
address6 = "fd00:2::2"
interface = "eth0"
[[node]] # s1
name = "s1"
id = 101
role = "server"
address4 = "10.0.3.2"
address6 = "fd00:3::2"
interface = "ens1"
[[node]] # s2
name = "s2"
id = 102
role = "server" # s2
address4 = "10.0.3.3"
address6 = "fd00:3::3"
interface = "ens2"
[[service]] # web
name = "web"
id = 7
vip4 = "203.0.113.10"
vip6 = "2001:db8::10"
port = 80
[[service.route]] # first
prefix = "/api"
pool = "api"
[[service.route]] # second
pool = "all"
[[pool]]
name = "all"
servers = [{ node = "s1" }, { node = "s2", port = 8080 }]
[[pool]] # api
name = "api"
algorithm = "least_connections"
servers = [{ node = "s1", port = 81, handoff = "/run/api.sock" }] # api
)";

/// Number of the first line that contains `text`; 0 when there is none.
inline unsigned line_of(const std::string& file, const std::string& text) {
  const std::size_t at = file.find(text);
  if (at == std::string::npos) return 0;
  return 1 + static_cast<unsigned>(
                 std::count(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
}

/// `file` with the first `from` replaced. Throws when it is not there, so that no test checks
/// nothing.
inline std::string replaced(std::string file, const std::string& from, const std::string& to) {
  return file.replace(file.find(from), from.size(), to);
}

inline std::vector<config::Problem> problems_of(const std::string& file) {
  auto parsed = config::parse(file, "t.toml");
  return parsed ? std::vector<config::Problem>{} : parsed.error();
}

}  // namespace tcpmig::config_samples
