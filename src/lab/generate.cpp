// SPDX-License-Identifier: MIT
#include "lab/generate.hpp"

#include <spdlog/spdlog.h>

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

/// What stands before the nodes: from the user, or the default.
struct Beginning {
  std::string text;
  unsigned lines = 0;  ///< of the user's own file
  bool has_timeouts = false;
};

/// The user's text with the sections that the flags replace blanked out, line by line.
Beginning user_part(std::istream& input, const std::string& name) {
  Beginning part;
  bool blank = false;
  for (std::string line; std::getline(input, line);) {
    ++part.lines;
    const std::string section = header_of(line);
    if (!section.empty()) blank = comes_from_flags(section);
    if (!section.empty() && blank)
      spdlog::warn("{}:{}: [{}] is ignored: a lab makes its own", name, part.lines, section);
    part.has_timeouts = part.has_timeouts || section == "timeouts";
    part.text += (blank ? std::string() : line) + "\n";
  }
  return part;
}

Beginning read_user_part(const std::filesystem::path& file) {
  const auto refuse = [&](const std::string& why) {
    throw std::invalid_argument("--config " + file.string() + ": " + why);
  };
  if (std::filesystem::is_directory(file)) refuse("it is a directory: name the file in it");
  std::ifstream input(file);
  if (!input) refuse(std::strerror(errno));
  return user_part(input, file.string());
}

Beginning default_part(const Plan& plan) {
  std::ostringstream text;
  text << web_service()
       << "\n[[service.route]]\nprefix = \"/\"\npool = "
          "\"servers\"\n\n"
       << "[[pool]]\nname = \"servers\"\nalgorithm = \"round_robin\"\nservers = [\n";
  for (const Node& node : plan.nodes)
    if (node.role == "server") text << "  { node = \"" << node.name << "\", port = 80 },\n";
  text << "]\n\n";
  return {text.str(), 0, false};
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

std::string resume_name(config::Resume resume) {
  switch (resume) {
    case config::Resume::kAuto:
      return "auto";
    case config::Resume::kKernel:
      return "kernel";
    case config::Resume::kRepair:
      return "repair";
  }
  throw std::logic_error("resume");
}

unsigned node_id(const Node& node) {
  const auto number = static_cast<unsigned>(std::stoul(node.name.substr(node.role.size())));
  return node.role == "server" ? kServerIdBase + number : number;
}

std::string nodes_part(const Plan& plan, config::Resume resume) {
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
    if (node.role == "server" && resume != config::Resume::kAuto)
      text << "resume = \"" << resume_name(resume) << "\"\n";
  }
  return text.str();
}

/// Short, so that tests see entries expire.
const char* const kTimeouts = "[timeouts]\nclosing = \"2s\"\nscan = \"500ms\"\n\n";

Beginning beginning(const Plan& plan, const Options& options) {
  if (!options.config_file.empty()) return read_user_part(options.config_file);
  if (options.config_text.empty()) return default_part(plan);
  std::istringstream text(options.config_text);
  return user_part(text, Paths(plan.name).config.string());
}

/// A problem below the user's last line comes of what the two parts make together.
std::string in_words(const config::Problem& problem, const Beginning& begin) {
  if (begin.lines == 0 || problem.line <= begin.lines) return problem.str();
  config::Problem whole = problem;
  whole.line = whole.column = 0;
  whole.what = "together with the lab's own nodes: " + problem.what;
  return whole.str();
}

}  // namespace

std::string web_service() {
  return std::string("[[service]]\nname = \"web\"\nid = 1\nvip4 = \"") + kVip4 + "\"\nvip6 = \"" +
         kVip6 + "\"\nport = 80\nprotocol = \"http\"\n";
}

LabConfig make_config(const Plan& plan, const Options& options) {
  const Beginning begin = beginning(plan, options);
  LabConfig result;
  result.text =
      begin.text + (begin.has_timeouts ? "" : kTimeouts) + nodes_part(plan, options.resume);
  const auto& file = options.config_file;
  auto config =
      config::parse(result.text, file.empty() ? Paths(plan.name).config.string() : file.string());
  if (config) {
    result.config = std::move(*config);
    return result;
  }
  std::string text;
  for (const config::Problem& problem : config.error())
    text += (text.empty() ? "" : "\n") + in_words(problem, begin);
  throw std::invalid_argument(text);
}

}  // namespace tcpmig::lab
