// SPDX-License-Identifier: MIT
// tcpmig lab up|exec|status|down|demo|fd-server|impair
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "cli/failure.hpp"
#include "cli/options.hpp"
#include "cli/text_table.hpp"
#include "lab/demo.hpp"
#include "lab/fd_server.hpp"
#include "lab/impair_process.hpp"
#include "lab/lab.hpp"
#include "lab/plan.hpp"

namespace tcpmig::cli {
namespace {

using Json = nlohmann::json;

const std::vector<std::pair<std::string, lab::ServerKind>> kServerKinds{
    {"mini_httpd", lab::ServerKind::kMiniHttpd},
    {"nginx", lab::ServerKind::kNginx},
    {"lighttpd", lab::ServerKind::kLighttpd},
    {"python3", lab::ServerKind::kPython},
    {"node", lab::ServerKind::kNode},
    {"apache2", lab::ServerKind::kApacheEvent},
    {"apache2-prefork", lab::ServerKind::kApachePrefork}};

const std::vector<std::pair<std::string, config::Resume>> kResumes{
    {"auto", config::Resume::kAuto},
    {"kernel", config::Resume::kKernel},
    {"repair", config::Resume::kRepair}};

void print(const Globals& globals, const Json& status) {
  if (globals.json) {
    print_json(status);
    return;
  }
  const auto joined = [](const Json& list) {
    std::string text;
    for (const Json& item : list)
      text +=
          (text.empty() ? "" : " ") + (item.is_string() ? item.get<std::string>() : item.dump());
    return text.empty() ? std::string("-") : text;
  };
  std::vector<std::vector<std::string>> rows{{"NODE", "ROLE", "ADDRESSES", "PIDS", "NETNS"}};
  for (const Json& node : status.at("nodes"))
    rows.push_back({node.at("name"), node.at("role"), joined(node.at("addresses")),
                    joined(node.at("pids")), node.at("netns")});
  std::cout << "lab " << status.at("name").get<std::string>() << " is up, VIPs "
            << joined(status.at("vips")) << "\n"
            << aligned(rows);
  if (!status.at("impairment").is_null())
    std::cout << "its links are impaired: " << status.at("impairment").at("spec").get<std::string>()
              << "\n";
  for (const Json& missing : status.at("not_running")) {
    const auto node = missing.at("node").get<std::string>();
    const auto role = missing.at("role").get<std::string>();
    std::cout << "NOT RUNNING: the " << role << " of " << node << "; its log is /run/tcpmig/"
              << status.at("name").get<std::string>() << "/" << node << ".log\n";
  }
  std::cout << std::flush;
}

int up(const Globals& globals, const lab::Options& options) {
  require_root("lab up", Rights::kNamespaces);
  quiet_log(globals);
  print(globals, lab::Lab::up(options).status());
  return kDone;
}

int exec(const Globals& globals, const std::string& name, const std::string& node,
         const std::vector<std::string>& command) {
  refuse_json(globals, "lab exec");
  if (command.empty())
    throw Failure(kUsage, "no command: write `tcpmig lab exec " + node + " -- COMMAND...`");
  require_root("lab exec", Rights::kNamespaces);
  quiet_log(globals);
  return lab::Lab::find(name).exec(node, command);
}

int down(const Globals& globals, const std::string& name) {
  require_root("lab down", Rights::kNamespaces);
  quiet_log(globals);
  const bool there = lab::Lab::down(name);
  if (globals.json)
    print_json({{"name", name}, {"removed", there}});
  else
    std::cout << (there ? "lab " + name + " is removed" : "there was no lab " + name) << std::endl;
  return kDone;
}

int status(const Globals& globals, const std::string& name) {
  require_root("lab status", Rights::kNamespaces);
  quiet_log(globals);
  print(globals, lab::Lab::find(name).status());
  return kDone;
}

int demo(const Globals& globals, const lab::DemoOptions& options) {
  require_root("lab demo", Rights::kNamespaces);
  quiet_log(globals);
  lab::DemoOptions asked = options;
  asked.json = globals.json;
  return lab::demo(asked);
}

/// What the verbs have in common; lives as long as the callbacks.
struct Lab {
  lab::Options options;
  lab::DemoOptions demo_options;
  std::string name = "lab";
  std::string node, socket_path, server_name = "fd-server";
};

void add_name(CLI::App* verb, std::string& name) {
  verb->add_option("--name", name, "Which lab; several can be up")
      ->capture_default_str()
      ->type_name("LAB");
}

lab::Impairment impairment_of(const std::string& spec) {
  try {
    return lab::parse_impairment(spec);
  } catch (const std::invalid_argument& error) {
    throw CLI::ValidationError(error.what());
  }
}

constexpr const char* kDatapathHelp = "auto, tc or xdp (auto is tc here: these are veths)";

void add_up(CLI::App* noun, const Globals& globals, Action& action,
            const std::shared_ptr<Lab>& lab) {
  CLI::App* verb =
      noun->add_subcommand("up", "Make a lab and start its roles; returns when it is ready");
  add_name(verb, lab->options.name);
  verb->add_option("--servers", lab->options.servers, "How many servers")
      ->check(number(1, lab::kMaxOfAKind))
      ->capture_default_str()
      ->type_name("N");
  verb->add_option("--dispatchers", lab->options.dispatchers, "How many dispatchers")
      ->check(number(1, lab::kMaxOfAKind))
      ->capture_default_str()
      ->type_name("N");
  verb->add_option("--clients", lab->options.clients, "How many clients")
      ->check(number(1, lab::kMaxOfAKind))
      ->capture_default_str()
      ->type_name("N");
  add_datapath(*verb, lab->options.datapath, kDatapathHelp);
  verb->add_option_function<std::string>(
          "--resume",
          [lab](const std::string& word) {
            lab->options.resume = chosen("--resume", word, kResumes);
          },
          "How the servers' agents make connections: auto, kernel, or repair, which takes servers "
          "that run under `tcpmig exec`")
      ->type_name("auto|kernel|repair");
  verb->add_option("--config", lab->options.config_file,
                   "Services, routes, pools, limits and timeouts from this file; nodes come from "
                   "the numbers above")
      ->type_name("FILE");
  verb->add_option_function<std::string>(
          "--impair",
          [lab](const std::string& spec) { lab->options.impairment = impairment_of(spec); },
          "Make the links between the switch and the nodes bad: loss=1%,reorder=2%,"
          "duplicate=0.5%,delay=50ms,jitter=5ms,seed=7,links=all (or clients, nodes, server1; "
          "several with + between). Each way of a link by itself, so delay=50ms is 100 ms there "
          "and back")
      ->type_name("SPEC");
  verb->footer(footer("sudo tcpmig lab up --servers 3 --datapath xdp", kOfAll));
  verb->callback(
      [&globals, &action, lab] { action = [&globals, lab] { return up(globals, lab->options); }; });
}

void add_exec(CLI::App* noun, const Globals& globals, Action& action,
              const std::shared_ptr<Lab>& lab, const std::vector<std::string>& command) {
  CLI::App* verb =
      noun->add_subcommand("exec", "Run a command in a node; ends with the command's exit code");
  add_name(verb, lab->name);
  verb->add_option("NODE", lab->node, "client1.., switch1, dispatcher1.., server1..")->required();
  verb->footer(
      footer("sudo tcpmig lab exec client1 -- curl -s http://203.0.113.10/", kOfAllNoJson));
  verb->callback([&globals, &action, &command, lab] {
    action = [&globals, &command, lab] { return exec(globals, lab->name, lab->node, command); };
  });
}

void add_rest(CLI::App* noun, const Globals& globals, Action& action,
              const std::shared_ptr<Lab>& lab) {
  CLI::App* verb = noun->add_subcommand("status", "Its nodes, addresses and processes");
  add_name(verb, lab->name);
  verb->footer(footer("sudo tcpmig lab status --json", kOfAll));
  verb->callback([&globals, &action, lab] {
    action = [&globals, lab] { return status(globals, lab->name); };
  });
  verb = noun->add_subcommand("down", "Remove it, also after a crash of anything");
  add_name(verb, lab->name);
  verb->footer(footer("sudo tcpmig lab down", kOfAll));
  verb->callback(
      [&globals, &action, lab] { action = [&globals, lab] { return down(globals, lab->name); }; });
  verb = noun->add_subcommand(
      "fd-server", "A server that is handed its connections (a pool server with `handoff`)");
  verb->add_option("--socket", lab->socket_path, "The Unix socket to listen on, as `handoff` says")
      ->required()
      ->type_name("PATH");
  verb->add_option("--as", lab->server_name, "What it calls itself in its answers")
      ->capture_default_str()
      ->type_name("NAME");
  verb->footer(
      footer("sudo tcpmig lab exec server1 -- tcpmig lab fd-server --socket /run/server1.sock",
             kOfAllNoJson));
  verb->callback([&globals, &action, lab] {
    action = [&globals, lab] {
      refuse_json(globals, "lab fd-server");
      quiet_log(globals);
      return lab::fd_server(lab->socket_path, lab->server_name);
    };
  });
}

/// `lab up` starts it; by hand only where it was killed.
void add_impair(CLI::App* noun, const Globals& globals, Action& action,
                const std::shared_ptr<Lab>& lab) {
  CLI::App* verb = noun->add_subcommand(
      "impair", "The process behind `lab up --impair`; by hand only where it was killed");
  add_name(verb, lab->name);
  verb->group("");  // not in the list of verbs
  verb->footer(footer("sudo tcpmig lab impair", kOfAllNoJson));
  verb->callback([&globals, &action, lab] {
    action = [&globals, lab] {
      refuse_json(globals, "lab impair");
      require_root("lab impair", Rights::kNamespaces);
      quiet_log(globals);
      return lab::impair(lab->name);
    };
  });
}

void add_demo(CLI::App* noun, const Globals& globals, Action& action,
              const std::shared_ptr<Lab>& lab) {
  CLI::App* verb =
      noun->add_subcommand("demo", "Show a live migration, step by step, in a lab of its own");
  add_name(verb, lab->demo_options.name);
  add_datapath(*verb, lab->demo_options.datapath, kDatapathHelp);
  verb->add_option_function<std::vector<std::string>>(
          "--servers",
          [lab](const std::vector<std::string>& words) {
            lab->demo_options.servers.clear();
            for (const std::string& word : words)
              lab->demo_options.servers.push_back(chosen("--servers", word, kServerKinds));
          },
          "What server1, server2, .. run: mini_httpd, nginx, lighttpd, python3, node, apache2, "
          "apache2-prefork (default: mini_httpd,mini_httpd,nginx)")
      ->delimiter(',')
      ->type_name("KIND,..");
  verb->add_option("--requests", lab->demo_options.requests,
                   "How many requests for the table of latencies")
      ->check(number(1, 1'000'000))
      ->capture_default_str()
      ->type_name("N");
  verb->add_flag("--keep", lab->demo_options.keep,
                 "Leave the lab and its servers running at the end, for `lab exec` and `lab down`");
  verb->add_flag(
      "--repair", lab->demo_options.repair,
      "The same as on a kernel without kernel resume: the servers run under `tcpmig exec`; "
      "and one that takes descriptors");
  verb->footer(
      footer("sudo tcpmig lab demo --datapath xdp --servers python3,lighttpd,node", kOfAll));
  verb->callback([&globals, &action, lab] {
    action = [&globals, lab] { return demo(globals, lab->demo_options); };
  });
}

}  // namespace

void add_lab(CLI::App& app, Globals& globals, Action& action,
             const std::vector<std::string>& command) {
  CLI::App* noun =
      app.add_subcommand("lab", "A whole cluster on this machine, in network namespaces");
  noun->require_subcommand(1);
  noun->footer(group_footer("lab", kOfAll));
  const auto lab = std::make_shared<Lab>();
  add_up(noun, globals, action, lab);
  add_exec(noun, globals, action, lab, command);
  add_rest(noun, globals, action, lab);
  add_demo(noun, globals, action, lab);
  add_impair(noun, globals, action, lab);
}

}  // namespace tcpmig::cli
