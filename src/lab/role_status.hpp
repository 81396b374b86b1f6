// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "lab/lab.hpp"

/// What the roles of a lab say of themselves on their status sockets.
namespace tcpmig::lab {

/// The document of the role that a node runs (switch, dispatcher, agent). Throws when nobody
/// answers.
nlohmann::json role_status(const Lab& lab, const std::string& node);

/// The first number of this name anywhere in a document, depth first; nullopt: none.
std::optional<std::uint64_t> find_number(const nlohmann::json& document, const std::string& name);

/// The same of a node's role, or an exception that names what is missing.
std::uint64_t role_number(const Lab& lab, const std::string& node, const std::string& name);

/// What the switch forwarded to a node and from it as a VIP, all services.
struct NodeTraffic {
  std::uint64_t packets_in = 0, bytes_in = 0, packets_out = 0, bytes_out = 0;
  bool operator==(const NodeTraffic&) const = default;
};
NodeTraffic node_traffic(const Lab& lab, const std::string& node);

}  // namespace tcpmig::lab
