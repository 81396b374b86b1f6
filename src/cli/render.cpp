// SPDX-License-Identifier: MIT
#include "cli/render.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "cli/text_table.hpp"

namespace tcpmig::cli {
namespace {

using Json = nlohmann::json;
using Rows = std::vector<std::vector<std::string>>;

const std::set<std::string> kInHeadline{"role", "node", "pid", "ready", "up", "datapath"};
const std::set<std::string> kForMachines{"recent"};  // many and nested

// In tables: names first, then what is set, then what is counted; anything else after them. Moments
// of a transfer in the order of time (a JSON object comes sorted by key).
const std::vector<std::string> kColumns{
    "name",      "id",     "role",        "interface",  "side",     "hook",
    "port",      "health", "heard_ms",    "address4",   "address6", "vip4",
    "vip6",      "alive",  "connections", "packets_in", "bytes_in", "packets_out",
    "bytes_out", "count",  "p50_ns",      "p90_ns",     "p99_ns"};
const std::vector<std::string> kMoments{"frozen",          "sent",    "switch_committed",
                                        "server_received", "resumed", "confirmed"};

void put_in_order(std::vector<std::string>& keys, const std::vector<std::string>& order) {
  std::ranges::stable_sort(keys, {}, [&](const std::string& key) {
    return std::ranges::find(order, key) - order.begin();
  });
}

/// "packets_in" -> "packets in"
std::string words(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

std::string heading(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return words(std::move(name));
}

std::string cell(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_null()) return "-";
  return value.dump();
}

/// Times are kept in ns, and read in us.
constexpr std::string_view kNanoseconds = "_ns";

std::string column_heading(const std::string& key) {
  if (!key.ends_with(kNanoseconds)) return heading(key);
  return heading(key.substr(0, key.size() - kNanoseconds.size()) + "_us");
}

std::string column_cell(const std::string& key, const Json& value) {
  if (!key.ends_with(kNanoseconds) || !value.is_number()) return cell(value);
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f", value.get<double>() / 1000);
  return text.data();
}

bool is_zero(const Json& value) {
  return (value.is_number() && value == 0) || value.is_null() ||
         (value.is_structured() && value.empty());
}

std::string joined(const Json& list) {
  std::string text;
  for (const Json& item : list) text += (text.empty() ? "" : ", ") + cell(item);
  return text;
}

/// Objects as rows; a column for each plain key that any of them has.
std::string table(const std::vector<std::pair<std::string, const Json*>>& items, bool named) {
  std::vector<std::string> keys;
  for (const auto& [name, item] : items)
    for (const auto& [key, value] : item->items())
      if (!value.is_structured() && std::find(keys.begin(), keys.end(), key) == keys.end())
        keys.push_back(key);
  put_in_order(keys, kColumns);
  Rows rows{{}};
  if (named) rows[0].emplace_back("");
  for (const std::string& key : keys) rows[0].push_back(column_heading(key));
  for (const auto& [name, item] : items) {
    rows.emplace_back();
    if (named) rows.back().push_back(words(name));
    for (const std::string& key : keys)
      rows.back().push_back(item->contains(key) ? column_cell(key, item->at(key)) : "-");
  }
  return aligned(rows, "    ");
}

std::string render_array(const std::string& name, const Json& list) {
  std::vector<std::pair<std::string, const Json*>> items;
  for (const Json& item : list)
    if (item.is_object()) items.emplace_back("", &item);
  if (items.empty()) return "  " + words(name) + ": " + joined(list) + "\n";
  return "  " + words(name) + "\n" + table(items, false);
}

std::string render_object(const std::string& name, const Json& object) {
  std::vector<std::pair<std::string, const Json*>> nested;
  Rows plain;
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  if (std::ranges::any_of(object, [](const Json& value) { return value.is_object(); }))
    put_in_order(keys, kMoments);
  for (const std::string& key : keys) {
    const Json& value = object.at(key);
    if (is_zero(value)) continue;
    if (value.is_object())
      nested.emplace_back(key, &value);
    else
      plain.push_back({words(key), value.is_array() ? joined(value) : cell(value)});
  }
  if (plain.empty() && nested.empty()) return {};
  return "  " + words(name) + "\n" + (plain.empty() ? "" : aligned(plain, "    ")) +
         (nested.empty() ? "" : table(nested, true));
}

std::string headline(const Json& document) {
  std::string text = document.value("role", "") + " " + document.value("node", "") + ": ";
  const Json pid = document.value("pid", Json());
  if (!pid.is_number())
    text += "not running";
  else
    text += (document.value("ready", false) ? "running" : "starting") + std::string(" (pid ") +
            pid.dump() + ")";
  if (document.contains("up"))
    text += document.at("up") == true ? ", steering by " + cell(document.value("datapath", Json()))
                                      : ", not attached everywhere";
  return text + "\n";
}

}  // namespace

std::string render_status(const Json& document) {
  Rows plain;
  std::string rest;
  for (const auto& [key, value] : document.items()) {
    if (kInHeadline.contains(key) || kForMachines.contains(key)) continue;
    if (value.is_object())
      rest += render_object(key, value);
    else if (value.is_array())
      rest += value.empty() ? "" : render_array(key, value);
    else
      plain.push_back({words(key), cell(value)});
  }
  return headline(document) + aligned(plain, "  ") + rest;
}

}  // namespace tcpmig::cli
