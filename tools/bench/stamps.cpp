// SPDX-License-Identifier: MIT
#include "stamps.hpp"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "lab/role_status.hpp"

namespace tcpmig::bench {

using nlohmann::json;

void take_stamps(const lab::Lab& lab, const std::map<std::string, std::uint64_t>& accepted,
                 Phases& phases) {
  std::size_t found = 0;
  const json status = lab::role_status(lab, "dispatcher1");
  for (const json& record : status.at("recent")) {
    const auto entry = accepted.find(record.at("client").get<std::string>());
    if (entry == accepted.end()) continue;
    ++found;
    json stamps = record.at("stamps_ns");
    stamps["accepted"] = entry->second;
    const auto at = [&](const char* stamp) { return stamps.at(stamp).get<std::uint64_t>(); };
    for (const auto& [stamp, name] : kMoments)
      if (at(stamp) >= at("head")) phases[name].push_back(double(at(stamp) - at("head")) / 1000);
    if (at("server_received") != 0 && at("resumed") >= at("server_received"))
      phases["opening"].push_back(double(at("resumed") - at("server_received")) / 1000);
  }
  if (found < accepted.size() / 2 || found == 0)
    throw std::runtime_error("the dispatcher has the stamps of " + std::to_string(found) + " of " +
                             std::to_string(accepted.size()) + " transfers only");
}

}  // namespace tcpmig::bench
