// SPDX-License-Identifier: MIT
#include "lab/state.hpp"

#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "sys/errors.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::lab {
namespace {

using nlohmann::json;

json to_json(const Node& node) {
  json addresses = json::array();
  for (const sys::Address& address : node.addresses) addresses.push_back(address.str());
  return {
      {"name", node.name}, {"role", node.role}, {"netns", node.netns}, {"addresses", addresses}};
}

Node node_from(const json& value) {
  Node node{value.at("name"), value.at("role"), value.at("netns"), {}, {}};
  for (const json& address : value.at("addresses"))
    node.addresses.push_back(sys::Address::parse(address.get<std::string>()).value());
  return node;
}

json to_json(const RoleProcess& role) {
  return {{"node", role.node},
          {"role", role.role},
          {"pid", role.process.pid},
          {"start_time", role.process.start_time},
          {"program", role.process.program}};
}

RoleProcess role_from(const json& value) {
  return {value.at("node"),
          value.at("role"),
          {value.at("pid"), value.at("start_time"), value.at("program")}};
}

}  // namespace

void write_state(const State& state) {
  json value = {{"name", state.name},
                {"ready", state.ready},
                {"program", state.program},
                {"impairment", state.impairment}};
  for (const Node& node : state.nodes) value["nodes"].push_back(to_json(node));
  value["processes"] = json::array();
  for (const RoleProcess& role : state.processes) value["processes"].push_back(to_json(role));

  const std::filesystem::path file = Paths(state.name).state;
  const std::filesystem::path draft = file.string() + ".new";
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(draft) << value.dump(2) << '\n';
  std::filesystem::rename(draft, file);
}

std::optional<State> read_state(const std::string& lab) {
  std::ifstream file(Paths(lab).state);
  if (!file) return {};
  try {
    const json value = json::parse(file);
    State state{value.at("name"),
                value.at("ready"),
                value.at("program"),
                {},
                {},
                value.value("impairment", "")};
    for (const json& node : value.at("nodes")) state.nodes.push_back(node_from(node));
    for (const json& role : value.at("processes")) state.processes.push_back(role_from(role));
    return state;
  } catch (const std::exception&) {
    return {};  // a leftover that says nothing: down() goes by the namespaces' names then
  }
}

NameLock::NameLock(const std::string& lab) : path_(Paths(lab).lock) {
  std::filesystem::create_directories(path_.parent_path());
  const bool locked = wait_until(std::chrono::seconds(10), [this] {
    if (auto fd = sys::try_lock(path_)) fd_ = std::move(*fd);
    return static_cast<bool>(fd_);
  });
  if (!locked)
    throw sys::AlreadyRunning("another `tcpmig lab` is just making or removing the lab \"" + lab +
                              "\": try again when it is done");
}

NameLock::~NameLock() {
  if (fd_) ::unlink(path_.c_str());  // while the lock is held
}

}  // namespace tcpmig::lab
