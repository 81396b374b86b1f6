// SPDX-License-Identifier: MIT
// Every counter and every reason is reached by a test of the part that counts it. A test case runs in a process of its own, so
// what counts is that some test expects the name: of a counter its JSON name, quoted; of a reason its constant.
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "agent/counters.hpp"
#include "catch.hpp"
#include "dispatcher/stats.hpp"
#include "shared/node_maps.h"
#include "shared/switch_maps.h"
#include "shared/wire.h"

namespace {

using Names = std::vector<std::string>;

const Names kOfSwitch{
#define X(number, json, text) json,
    SWITCH_COUNTERS(X)
#undef X
};
const Names kOfNode{
#define X(number, json, text) json,
    NODE_COUNTERS(X)
#undef X
};
const Names kOfAgent{
#define X(name, text) #name,
    TCPMIG_AGENT_COUNTERS(X)
#undef X
};
const Names kOfDispatcher{
#define X(number, json) json,
    DISPATCHER_COUNTERS(X)
#undef X
};
const Names kReasons{
#define X(name, value, text) #name,
    WIRE_REASONS(X)
#undef X
};

std::string sources_of(const Names& layers) {
  std::string all;
  for (const std::string& layer : layers)
    for (const auto& entry :
         std::filesystem::directory_iterator(std::filesystem::path(TCPMIG_TESTS) / layer)) {
      if (entry.path().extension() != ".cpp") continue;
      std::ostringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      all += text.str();
    }
  REQUIRE_FALSE(all.empty());
  return all;
}

/// The word as a whole: REASON_ABORTED is not in REASON_ABORTED_X.
bool has_word(const std::string& text, const std::string& word) {
  for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    const char next = text[at + word.size()];
    if (std::isalnum(static_cast<unsigned char>(next)) == 0 && next != '_') return true;
  }
  return false;
}

void check_reached(const Names& names, const Names& layers, bool quoted) {
  const std::string text = sources_of(layers);
  for (const std::string& name : names) {
    INFO(name);
    const bool reached =
        quoted ? text.find('"' + name + '"') != std::string::npos : has_word(text, name);
    CHECK(reached);
  }
}

}  // namespace

TEST_CASE("counters: those of the switch are expected by tests of its programs") {
  check_reached(kOfSwitch, {"bpf"}, true);
}

TEST_CASE("counters: those of a node's programs and of the agent are expected by tests") {
  check_reached(kOfNode, {"net"}, true);
  check_reached(kOfAgent, {"net"}, true);
}

TEST_CASE("counters: those of the dispatcher are expected by tests of the whole system") {
  check_reached(kOfDispatcher, {"e2e"}, true);
}

TEST_CASE("counters: every reason to refuse a transfer is expected by a test") {
  check_reached(kReasons, {"bpf", "net"}, false);
}
