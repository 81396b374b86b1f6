// SPDX-License-Identifier: MIT
#include "config/table_reader.hpp"

#include <algorithm>
#include <charconv>
#include <sstream>

namespace tcpmig::config {
namespace {

std::string type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::none:
      return "nothing";
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "a boolean";
    case toml::node_type::date:
      return "a date";
    case toml::node_type::time:
      return "a time";
    case toml::node_type::date_time:
      return "a date";
  }
  return "something else";
}

/// "2s" -> 2000 ms. No spaces, no fractions, no sum of units: one number, one unit.
std::optional<std::chrono::milliseconds> parse_duration(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || number < 0 || number > 1'000'000'000'000) return {};
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  if (unit == "ms") return std::chrono::milliseconds(number);
  if (unit == "s") return std::chrono::seconds(number);
  if (number > 1'000'000'000) return {};
  if (unit == "m") return std::chrono::minutes(number);
  if (unit == "h") return std::chrono::hours(number);
  if (unit == "d") return std::chrono::hours(24 * number);
  return {};
}

}  // namespace

Where where_of(const toml::node& node) {
  const auto& begin = node.source().begin;
  return {begin.line, begin.column};
}

TableReader::TableReader(const toml::table& table, std::string title, Problems& problems)
    : table_(table),
      title_(std::move(title)),
      problems_(problems),
      problems_before_(problems.size()) {
  places_.table = where_of(table);
  for (const auto& [key, value] : table) {
    const auto& begin = key.source().begin;
    places_.keys[std::string(key.str())] = {begin.line, begin.column};
  }
}

const toml::node* TableReader::take(const std::string& key) {
  if (std::find(known_.begin(), known_.end(), key) == known_.end()) known_.push_back(key);
  return table_.get(key);
}

void TableReader::problem(const std::string& key, std::string what, std::string fix) {
  problems_.add(places_.of(key), std::move(what), std::move(fix));
}

void TableReader::missing(const std::string& key, const std::string& example) {
  problems_.add(places_.table, quote(key) + " is missing in " + title_,
                "add " + key + " = " + example);
}

void TableReader::wrong_type(const std::string& key, const toml::node& node,
                             const std::string& wanted) {
  std::ostringstream fix;
  fix << "write " << wanted;
  if (const auto* number = node.as_string(); number && wanted.starts_with("an integer"))
    fix << ", without quotes";
  problems_.add(places_.of(key), quote(key) + " in " + title_ + " is " + type_name(node),
                fix.str());
}

std::optional<std::string> TableReader::text(const std::string& key) {
  const toml::node* node = take(key);
  if (node == nullptr) return {};
  if (const auto* value = node->as_string()) {
    if (!value->get().empty()) return value->get();
    problem(key, quote(key) + " in " + title_ + " is empty",
            "write something or take the line away");
    return {};
  }
  wrong_type(key, *node, "a string in quotes");
  return {};
}

std::string TableReader::needed_text(const std::string& key, const std::string& example) {
  if (!has(key)) missing(key, quote(example));
  return text(key).value_or("");
}

std::optional<std::int64_t> TableReader::integer(const std::string& key, std::int64_t low,
                                                 std::int64_t high) {
  const toml::node* node = take(key);
  if (node == nullptr) return {};
  const std::string range = std::to_string(low) + " to " + std::to_string(high);
  const auto* value = node->as_integer();
  if (value == nullptr) {
    wrong_type(key, *node, "an integer from " + range);
    return {};
  }
  if (value->get() >= low && value->get() <= high) return value->get();
  problem(key, quote(key) + " in " + title_ + " is " + std::to_string(value->get()),
          "it must be from " + range);
  return {};
}

std::int64_t TableReader::needed_integer(const std::string& key, std::int64_t low,
                                         std::int64_t high) {
  if (!has(key))
    missing(key, "a number from " + std::to_string(low) + " to " + std::to_string(high));
  return integer(key, low, high).value_or(0);
}

std::optional<bool> TableReader::boolean(const std::string& key) {
  const toml::node* node = take(key);
  if (node == nullptr) return {};
  if (const auto* value = node->as_boolean()) return value->get();
  wrong_type(key, *node, "true or false");
  return {};
}

std::optional<std::chrono::milliseconds> TableReader::duration(const std::string& key,
                                                               std::chrono::milliseconds longest) {
  const toml::node* node = take(key);
  if (node == nullptr) return {};
  const std::string forms =
      "write \"500ms\", \"2s\", \"1m\", \"1h\", \"1d\" or an integer of milliseconds";
  std::optional<std::chrono::milliseconds> value;
  if (const auto* text = node->as_string())
    value = parse_duration(text->get());
  else if (const auto* number = node->as_integer())
    value = std::chrono::milliseconds(number->get());
  if (!value) {
    problem(key, quote(key) + " in " + title_ + " is not a duration", forms);
    return {};
  }
  if (value->count() >= 1 && *value <= longest) return value;
  problem(key, quote(key) + " in " + title_ + " is " + std::to_string(value->count()) + " ms",
          "it must be from 1 ms to " + std::to_string(longest.count()) + " ms");
  return {};
}

sys::Address TableReader::address(const std::string& key) {
  const std::optional<std::string> value = text(key);
  if (!value) return {};
  const bool wants_ipv4 = key.ends_with('4');
  const std::string fix = wants_ipv4 ? "write an IPv4 address, as \"192.0.2.1\""
                                     : "write an IPv6 address, as \"2001:db8::1\"";
  const auto parsed = sys::Address::parse(*value);
  if (!parsed || !parsed->is_set()) {
    problem(key, quote(*value) + " is no address", fix);
    return {};
  }
  if (parsed->is_ipv4() == wants_ipv4) return *parsed;
  problem(key, quote(key) + " is an " + (wants_ipv4 ? "IPv6" : "IPv4") + " address", fix);
  return {};
}

std::optional<sys::Prefix> TableReader::prefix(const std::string& key) {
  const std::optional<std::string> value = text(key);
  if (!value) return {};
  const auto parsed = sys::Prefix::parse(*value);
  if (parsed && value->find('/') != std::string::npos) return *parsed;
  problem(key, quote(*value) + " is no prefix", "write ADDRESS/LENGTH, as \"100.64.0.0/10\"");
  return {};
}

std::vector<std::string> TableReader::needed_texts(const std::string& key,
                                                   const std::string& example) {
  const toml::node* node = take(key);
  std::vector<std::string> texts;
  if (node == nullptr) {
    missing(key, example);
    return texts;
  }
  const toml::array* array = node->as_array();
  bool good = array != nullptr && !array->empty();
  if (good)
    for (const toml::node& element : *array) {
      const auto* value = element.as_string();
      good = good && value != nullptr && !value->get().empty();
      if (good) texts.push_back(value->get());
    }
  if (good) return texts;
  problem(key, quote(key) + " in " + title_ + " is not a list of names",
          "write " + key + " = " + example);
  return {};
}

std::optional<std::string> TableReader::choice(const std::string& key,
                                               const std::vector<std::string>& words) {
  std::optional<std::string> value = text(key);
  if (!value || std::find(words.begin(), words.end(), *value) != words.end()) return value;
  const std::string near = nearest(*value, words);
  problem(key, quote(*value) + " is no " + key,
          near.empty() ? "write " + one_of(words) : "did you mean " + quote(near) + "?");
  return {};
}

std::vector<const toml::table*> TableReader::tables(const std::string& key) {
  const toml::node* node = take(key);
  std::vector<const toml::table*> list;
  if (node == nullptr) return list;
  if (const toml::array* array = node->as_array()) {
    for (const toml::node& element : *array) {
      if (const toml::table* table = element.as_table())
        list.push_back(table);
      else
        problems_.add(where_of(element),
                      quote(key) + " in " + title_ + " holds " + type_name(element),
                      "every element must be a table: { key = value, .. }");
    }
    return list;
  }
  const bool top = title_ == "the file";
  problem(key, quote(key) + " in " + title_ + " is " + type_name(*node),
          top ? "write [[" + key + "]], with two brackets"
              : "write a list of tables: [{ .. }, { .. }]");
  return list;
}

void TableReader::finish() {
  for (const auto& [key, where] : places_.keys) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    const std::string near = nearest(key, known_);
    problems_.add(
        where, "unknown key " + quote(key) + " in " + title_,
        near.empty() ? "it can be " + one_of(known_) : "did you mean " + quote(near) + "?");
  }
  places_.sound = problems_.size() == problems_before_;
}

}  // namespace tcpmig::config
