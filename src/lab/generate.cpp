// SPDX-License-Identifier: MIT
#include "lab/generate.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <regex>
#include <sstream>
#include <stdexcept>

namespace tcpmig::lab {
namespace {

/// First word of a table header: "service" of "[[service.route]]".
std::string header_of(const std::string& line) {
  static const std::regex kHeader(R"(^\s*\[\[?\s*([A-Za-z0-9_-]+)\s*[\].].*)");
  std::smatch match;
  return std::regex_match(line, match, kHeader) ? match[1].str() : std::string();
}

bool comes_from_flags(const std::string& section) {
  return section == "cluster" || section == "switch" || section == "node";
}

struct UserPart {
  std::string text;
  bool has_timeouts = false;
};

/// The user's file with the sections that the flags replace blanked out, line by line.
UserPart read_user_part(const std::filesystem::path& file) {
  std::ifstream input(file);
  if (!input) throw std::runtime_error(file.string() + ": " + std::strerror(errno));
  UserPart part;
  bool blank = false;
  for (std::string line; std::getline(input, line);) {
    const std::string section = header_of(line);
    if (!section.empty()) blank = comes_from_flags(section);
    part.has_timeouts = part.has_timeouts || section == "timeouts";
    part.text += (blank ? std::string() : line) + "\n";
  }
  return part;
}

UserPart default_part(const Plan& plan) {
  std::ostringstream text;
  text << "[[service]]\nname = \"web\"\nid = 1\nvip4 = \"" << kVip4 << "\"\nvip6 = \"" << kVip6
       << "\"\nport = 80\nprotocol = \"http\"\n\n[[service.route]]\nprefix = \"/\"\npool = "
          "\"servers\"\n\n"
       << "[[pool]]\nname = \"servers\"\nalgorithm = \"round_robin\"\nservers = [\n";
  for (const Node& node : plan.nodes)
    if (node.role == "server") text << "  { node = \"" << node.name << "\", port = 80 },\n";
  text << "]\n\n";
  return {text.str(), false};
}

std::string datapath_name(config::Datapath datapath) {
  switch (datapath) {
    case config::Datapath::kAuto:
      return "auto";
    case config::Datapath::kTc:
      return "tc";
    case config::Datapath::kXdp:
      return "xdp";
  }
  throw std::logic_error("datapath");
}

unsigned node_id(const Node& node) {
  const auto number = static_cast<unsigned>(std::stoul(node.name.substr(node.role.size())));
  return node.role == "server" ? kServerIdBase + number : number;
}

std::string nodes_part(const Plan& plan) {
  std::ostringstream text;
  text << "[cluster]\nname = \"" << plan.name << "\"\nsecret_file = \""
       << Paths(plan.name).secret.string()
       << "\"\n\n[[switch]]\nname = \"switch1\"\nclients = [\"eth0\"]\nnodes = [\"eth1\", "
          "\"eth2\"]\ndatapath = \""
       << datapath_name(plan.datapath) << "\"\n";
  for (const Node& node : plan.nodes) {
    if (node.role != "dispatcher" && node.role != "server") continue;
    text << "\n[[node]]\nname = \"" << node.name << "\"\nid = " << node_id(node) << "\nrole = \""
         << node.role << "\"\naddress4 = \"" << node.addresses.at(0).str() << "\"\naddress6 = \""
         << node.addresses.at(1).str() << "\"\ninterface = \"eth0\"\n";
  }
  return text.str();
}

/// Short, so that tests see entries expire.
const char* const kTimeouts = "[timeouts]\nclosing = \"2s\"\nscan = \"500ms\"\n\n";

}  // namespace

std::string generate_config(const Plan& plan, const std::filesystem::path& config_file) {
  const UserPart part = config_file.empty() ? default_part(plan) : read_user_part(config_file);
  return part.text + (part.has_timeouts ? "" : kTimeouts) + nodes_part(plan);
}

config::Config check_config(const Plan& plan, const std::filesystem::path& config_file) {
  const std::string name =
      config_file.empty() ? Paths(plan.name).config.string() : config_file.string();
  auto config = config::parse(generate_config(plan, config_file), name);
  if (config) return *config;
  std::string text;
  for (const config::Problem& problem : config.error())
    text += (text.empty() ? "" : "\n") + problem.str();
  throw std::invalid_argument(text);
}

}  // namespace tcpmig::lab
