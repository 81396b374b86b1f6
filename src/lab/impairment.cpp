// SPDX-License-Identifier: MIT
#include "lab/impairment.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <stdexcept>

namespace tcpmig::lab {
namespace {

using std::chrono::microseconds;

constexpr microseconds kLongest = std::chrono::seconds(10);
/// A frame that is to be overtaken waits so long. Frames of one burst are microseconds apart.
constexpr microseconds kHeldAtLeast = std::chrono::milliseconds(1);
constexpr microseconds kHeldAtMost = std::chrono::milliseconds(5);

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument("--impair: " + what);
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  for (;;) {
    const std::size_t end = text.find(at, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

/// A number that is not negative, and the word right behind it.
std::optional<std::pair<double, std::string>> number_and_unit(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (error != std::errc() || !(value >= 0)) return {};
  return std::pair(value, std::string(rest, end));
}

double parse_share(const std::string& key, const std::string& text) {
  const auto read = number_and_unit(text);
  if (!read || read->second != "%" || read->first > 100)
    refuse(key + "=" + text + " is no share of the frames: write " + key + "=1%, from 0% to 100%");
  return read->first / 100;
}

microseconds parse_time(const std::string& key, const std::string& text) {
  const auto read = number_and_unit(text);
  const double scale = !read                  ? 0
                       : read->second == "us" ? 1
                       : read->second == "ms" ? 1e3
                       : read->second == "s"  ? 1e6
                                              : 0;
  if (scale == 0 || read->first * scale > static_cast<double>(kLongest.count()))
    refuse(key + "=" + text + " is no time: write " + key + "=20ms (us, ms or s; 10s at most)");
  return microseconds(static_cast<long>(read->first * scale + 0.5));
}

std::uint64_t parse_seed(const std::string& text) {
  std::uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end)
    refuse("seed=" + text + " is no whole number: write seed=7");
  return value;
}

std::vector<std::string> parse_links(const std::string& text) {
  std::vector<std::string> links = split(text, '+');
  for (const std::string& link : links) {
    if (link == "switch1")
      refuse("links=switch1: a link is what lies between the switch and a node; write links=all");
    if (link.empty())
      refuse("links=" + text +
             ": write all, clients, nodes or a node's name, several with + between");
  }
  return links;
}

void take(Impairment& result, const std::string& part) {
  const std::size_t equals = part.find('=');
  const std::string key = part.substr(0, equals);
  const std::string value = equals == std::string::npos ? std::string() : part.substr(equals + 1);
  if (key == "loss")
    result.loss = parse_share(key, value);
  else if (key == "reorder")
    result.reorder = parse_share(key, value);
  else if (key == "duplicate")
    result.duplicate = parse_share(key, value);
  else if (key == "delay")
    result.delay = parse_time(key, value);
  else if (key == "jitter")
    result.jitter = parse_time(key, value);
  else if (key == "seed")
    result.seed = parse_seed(value);
  else if (key == "links")
    result.links = parse_links(value);
  else
    refuse("\"" + part +
           "\" is not known: write loss=, reorder=, duplicate=, delay=, jitter=, seed= or links=, "
           "with commas between");
}

std::string decimal(double value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return {text, end};
}

/// Percents with four decimals at most: 0.01 * 100 is not 1 for every share.
std::string percent(double share) {
  return decimal(static_cast<double>(static_cast<long>(share * 1e6 + 0.5)) / 1e4) + "%";
}

std::string time_text(microseconds time) {
  return decimal(static_cast<double>(time.count()) / 1e3) + "ms";
}

std::uint64_t fnv(const std::string& text) {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const unsigned char byte : text) hash = (hash ^ byte) * 1099511628211ULL;
  return hash;
}

}  // namespace

bool Impairment::concerns(const std::string& node, const std::string& role) const {
  if (role == "switch" || role == "fabric") return false;
  return std::ranges::any_of(links, [&](const std::string& link) {
    return link == "all" || link == node || (link == "clients" && role == "client") ||
           (link == "nodes" && role != "client");
  });
}

std::string Impairment::str() const {
  std::string text;
  const auto add = [&](const char* key, const std::string& value) {
    text += (text.empty() ? "" : ",") + std::string(key) + "=" + value;
  };
  if (loss > 0) add("loss", percent(loss));
  if (reorder > 0) add("reorder", percent(reorder));
  if (duplicate > 0) add("duplicate", percent(duplicate));
  if (delay.count() > 0) add("delay", time_text(delay));
  if (jitter.count() > 0) add("jitter", time_text(jitter));
  add("seed", std::to_string(seed));
  std::string names;
  for (const std::string& link : links) names += (names.empty() ? "" : "+") + link;
  add("links", names);
  return text;
}

Impairment parse_impairment(const std::string& spec) {
  if (spec.empty()) refuse("it is empty: write for instance loss=1%,reorder=2%,delay=20ms");
  Impairment result;
  std::vector<std::string> known;
  for (const std::string& part : split(spec, ',')) {
    const std::string key = part.substr(0, part.find('='));
    if (std::ranges::find(known, key) != known.end()) refuse(key + "= is there twice");
    known.push_back(key);
    take(result, part);
  }
  if (result.jitter > result.delay)
    refuse("jitter=" + time_text(result.jitter) + " is more than delay=" + time_text(result.delay) +
           ": the delay is delay +- jitter");
  return result;
}

Dice::Dice(const Impairment& impairment, const std::string& direction)
    : impairment_(impairment), random_(impairment.seed ^ fnv(direction)) {}

/// The standard's distributions may differ from library to library; this does not.
double Dice::between_0_and_1() { return static_cast<double>(random_() >> 11U) * 0x1.0p-53; }

Fate Dice::next() {
  // Always the same number of draws: a frame's fate does not depend on its predecessors'.
  const double loss = between_0_and_1(), doubled = between_0_and_1(), held = between_0_and_1(),
               jitter = between_0_and_1(), how_long = between_0_and_1();
  Fate fate;
  fate.lost = loss < impairment_.loss;
  fate.doubled = doubled < impairment_.duplicate;
  fate.delay =
      impairment_.delay + microseconds(static_cast<long>(
                              static_cast<double>(impairment_.jitter.count()) * (2 * jitter - 1)));
  if (held < impairment_.reorder)
    fate.held =
        kHeldAtLeast + microseconds(static_cast<long>(
                           static_cast<double>((kHeldAtMost - kHeldAtLeast).count()) * how_long));
  return fate;
}

}  // namespace tcpmig::lab
