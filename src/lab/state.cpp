// SPDX-License-Identifier: MIT
#include "lab/state.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "sys/check.hpp"

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

/// True when the file of this name is still the one that is open (nobody has removed it between
/// open and flock).
bool same_file(int fd, const std::filesystem::path& path) {
  struct stat opened{};
  struct stat named{};
  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
         opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

}  // namespace

void write_state(const State& state) {
  json value = {{"name", state.name}, {"ready", state.ready}, {"program", state.program}};
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
    State state{value.at("name"), value.at("ready"), value.at("program"), {}, {}};
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
    fd_.reset(sys::check("open " + path_.string(),
                         ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)));
    return ::flock(fd_.get(), LOCK_EX | LOCK_NB) == 0 && same_file(fd_.get(), path_);
  });
  if (!locked) {
    fd_.reset();
    throw std::runtime_error("another `tcpmig lab` is just making or removing the lab \"" + lab +
                             "\": try again when it is done");
  }
}

NameLock::~NameLock() {
  if (fd_) ::unlink(path_.c_str());  // while the lock is held
}

}  // namespace tcpmig::lab
