// SPDX-License-Identifier: MIT
#include "lab/role_status.hpp"

#include <stdexcept>

#include "control/status_socket.hpp"
#include "lab/roles.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::lab {

using nlohmann::json;

json role_status(const Lab& lab, const std::string& node) {
  const std::string role = role_of(lab.node(node));
  auto status = control::query_status(sys::RolePaths{lab.name(), node}.socket(role));
  if (!status)
    throw std::runtime_error("the " + role + " of " + node +
                             " does not answer on its status socket");
  return *status;
}

std::optional<std::uint64_t> find_number(const json& document, const std::string& name) {
  if (document.is_object() && document.contains(name) && document[name].is_number())
    return document[name].get<std::uint64_t>();
  if (document.is_structured())
    for (const json& part : document)
      if (const auto found = find_number(part, name)) return found;
  return {};
}

std::uint64_t role_number(const Lab& lab, const std::string& node, const std::string& name) {
  const json status = role_status(lab, node);
  if (const auto found = find_number(status, name)) return *found;
  throw std::runtime_error("the status of " + node + " has no number \"" + name +
                           "\": " + status.dump());
}

NodeTraffic node_traffic(const Lab& lab, const std::string& node) {
  const json status = role_status(lab, "switch1");
  for (const json& entry : status.at("nodes")) {
    if (entry.value("name", "") != node) continue;
    const auto number = [&](const char* name) { return find_number(entry, name).value_or(0); };
    return {number("packets_in"), number("bytes_in"), number("packets_out"), number("bytes_out")};
  }
  throw std::runtime_error("the switch's status does not mention " + node + ": " + status.dump());
}

}  // namespace tcpmig::lab
