// SPDX-License-Identifier: MIT
#include "cli/render.hpp"

#include <algorithm>
#include <cctype>
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

bool is_zero(const Json& value) {
  return (value.is_number() && value == 0) || value.is_null() ||
         (value.is_structured() && value.empty());
}

std::string joined(const Json& list) {
  std::string text;
  for (const Json& item : list) text += (text.empty() ? "" : ", ") + cell(item);
  return text;
}

/// Objects as rows; a column for each plain key that any of them has, in the order of first sight.
std::string table(const std::vector<std::pair<std::string, const Json*>>& items, bool named) {
  std::vector<std::string> keys;
  for (const auto& [name, item] : items)
    for (const auto& [key, value] : item->items())
      if (!value.is_structured() && std::find(keys.begin(), keys.end(), key) == keys.end())
        keys.push_back(key);
  if (const auto name = std::find(keys.begin(), keys.end(), "name"); name != keys.end())
    std::rotate(keys.begin(), name, name + 1);  // JSON objects come sorted by key
  Rows rows{{}};
  if (named) rows[0].emplace_back("");
  for (const std::string& key : keys) rows[0].push_back(heading(key));
  for (const auto& [name, item] : items) {
    rows.emplace_back();
    if (named) rows.back().push_back(words(name));
    for (const std::string& key : keys)
      rows.back().push_back(item->contains(key) ? cell(item->at(key)) : "-");
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
  for (const auto& [key, value] : object.items()) {
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
