// SPDX-License-Identifier: MIT
// soak: a lab with bad links, many clients, and somebody who ends roles at random; at the end, every
// connection is accounted for.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "agent/agent.hpp"
#include "lab/interrupt.hpp"
#include "lab/role_status.hpp"
#include "soak/chaos.hpp"
#include "soak/clients.hpp"
#include "soak/server.hpp"
#include "soak/verdict.hpp"
#include "sys/netns.hpp"

namespace tcpmig::soak {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

struct Options {
  unsigned seconds = 600;
  std::uint64_t seed = 0;  ///< 0: a random one
  unsigned parallel = 96;
  unsigned deadline = 60;
  std::uint64_t at_least = 0;
  std::string impair = "loss=1%,reorder=2%,duplicate=0.5%,delay=1ms,jitter=500us";
  std::string datapath = "tc";
  std::string name = "soak-" + std::to_string(::getpid());
  std::string program;
  bool json = false;
  bool calm = false;
};

class SoakLab {
 public:
  explicit SoakLab(const lab::Options& options) : lab_(lab::Lab::up(options)) {}
  ~SoakLab() {
    try {
      lab::Lab::down(lab_.name());
    } catch (const std::exception& error) {
      std::cerr << "soak: " << error.what() << '\n';
    }
  }
  SoakLab(const SoakLab&) = delete;
  SoakLab& operator=(const SoakLab&) = delete;
  const lab::Lab& operator*() const noexcept { return lab_; }

 private:
  lab::Lab lab_;
};

/// Counters of dispatchers and agents over all their lives. What one has counted between the last look and a
/// kill is missing.
class Harvest {
 public:
  explicit Harvest(const lab::Lab& lab) : lab_(lab) {}
  void look(const std::string& node) {
    const std::string role = lab_.node(node).role;
    if (role != "dispatcher" && role != "server") return;
    json status;
    try {
      status = lab::role_status(lab_, node);
    } catch (const std::exception&) {
      return;  // it is just down
    }
    Life& life = lives_[node];
    if (life.pid != status.at("pid")) add(life.numbers), life.pid = status.at("pid");
    life.numbers.clear();
    for (const char* group :
         {"counters", "agent", "programs", "relayed", "answers", "refused", "freeze_refused"})
      if (const json* found = find_object(status, group))
        for (const auto& [key, value] : found->items())
          if (value.is_number() && value != 0)
            life.numbers[(role == "server" ? "agent" : role) + ": " +
                         (group == std::string("counters") ? "" : group + std::string(": ")) +
                         key] = value.get<std::uint64_t>();
  }
  void look_at_all() {
    for (const lab::Node& node : lab_.nodes()) look(node.name);
  }
  [[nodiscard]] std::map<std::string, std::uint64_t> totals() const {
    auto totals = over_;
    for (const auto& [node, life] : lives_)
      for (const auto& [name, number] : life.numbers) totals[name] += number;
    return totals;
  }

 private:
  struct Life {
    int pid = 0;
    std::map<std::string, std::uint64_t> numbers;
  };
  static const json* find_object(const json& document, const std::string& name) {
    if (document.is_object() && document.contains(name) && document[name].is_object())
      return &document[name];
    if (document.is_structured())
      for (const json& part : document)
        if (const json* found = find_object(part, name)) return found;
    return nullptr;
  }
  void add(const std::map<std::string, std::uint64_t>& numbers) {
    for (const auto& [name, number] : numbers) over_[name] += number;
  }
  const lab::Lab& lab_;
  std::map<std::string, Life> lives_;
  std::map<std::string, std::uint64_t> over_;
};

lab::Options lab_options(const Options& options) {
  lab::Options result{.name = options.name, .servers = 3, .dispatchers = 2};
  result.datapath = options.datapath == "xdp" ? config::Datapath::kXdp : config::Datapath::kTc;
  result.program = options.program;
  if (!options.impair.empty()) {
    result.impairment = lab::parse_impairment(options.impair);
    result.impairment->seed = options.seed;
  }
  return result;
}

std::string outcome_line(const Clients::Totals& clients, const Verdict::Totals& verdict,
                         const Record::Totals& record, const Chaos& chaos, double seconds) {
  char text[256];
  std::snprintf(
      text, sizeof text,
      "%4.0f s: %lu migrations, %lu requests (%lu POST), %lu open, %lu relayed, %zu outages; "
      "failed %lu (unexcused %u, hung %u), wrong %u, mixed %u, POST twice %lu",
      seconds, clients.migrations, clients.requests, clients.posts, clients.open, clients.relays,
      chaos.outages().size(), clients.failed, verdict.unexcused, verdict.hung, verdict.wrong,
      verdict.mixed, record.posts_twice);
  return text;
}

class Soak {
 public:
  explicit Soak(Options options)
      : options_(std::move(options)),
        lab_(lab_options(options_)),
        chaos_(*lab_, options_.program, options_.seed),
        verdict_(*lab_, chaos_),
        harvest_(*lab_) {
    for (const lab::Node& node : (*lab_).nodes())
      if (node.role == "server")
        servers_.push_back(std::make_unique<Server>(node.netns, node.name, record_));
    const config::Service& service = (*lab_).config().services.at(0);
    clients_ = std::make_unique<Clients>(
        ClientOptions{.netns = (*lab_).node("client1").netns,
                      .vips = {{service.vip4, service.port}, {service.vip6, service.port}},
                      .seed = options_.seed,
                      .parallel = options_.parallel,
                      .deadline = std::chrono::seconds(options_.deadline)},
        [this](const Failure& failure) { verdict_.judge(failure); });
  }

  /// Exit code 77: this kernel resumes nothing, found by probing.
  [[nodiscard]] bool skipped() const {
    const sys::EnterNetns inside((*lab_).node("server1").netns);
    for (const agent::Finding& finding :
         agent::check((*lab_).config(), *(*lab_).config().find_node("server1"))) {
      if (finding.name != "kfunc" || finding.ok) continue;
      std::cout << "SKIPPED: " << finding.detail << '\n';
      return true;
    }
    return false;
  }

  int run() {
    const auto end = begun_ + std::chrono::seconds(options_.seconds);
    while (Clock::now() < end && !lab::interrupted()) {
      const auto quiet = std::min(end, Clock::now() + chaos_.next_pause());
      while (Clock::now() < quiet && !lab::interrupted()) {
        progress();
        ::usleep(50'000);
      }
      if (Clock::now() < end && !lab::interrupted() && !options_.calm)
        chaos_.strike([this](const std::string& node) { harvest_.look(node); });
    }
    ran_ = std::chrono::duration<double>(Clock::now() - begun_).count();
    clients_->finish();
    harvest_.look_at_all();
    const int code = report();
    return lab::interrupted() ? 130 : code;
  }

 private:
  void progress() {
    if (Clock::now() < next_progress_) return;
    next_progress_ = Clock::now() + std::chrono::seconds(5);
    harvest_.look_at_all();
    std::cerr << outcome_line(clients_->totals(), verdict_.totals(), record_.totals(), chaos_,
                              std::chrono::duration<double>(Clock::now() - begun_).count())
              << std::endl;
  }

  [[nodiscard]] json outages() const {
    json result = json::object();
    for (const Outage& outage : chaos_.outages()) {
      json& number = result[outage.role + (outage.killed ? " killed" : " ended")];
      number = number.is_null() ? 1 : number.get<int>() + 1;
    }
    return result;
  }

  [[nodiscard]] json document() const {
    const Clients::Totals clients = clients_->totals();
    const Verdict::Totals verdict = verdict_.totals();
    const Record::Totals record = record_.totals();
    json result = {{"seed", options_.seed},
                   {"seconds", ran_},
                   {"datapath", options_.datapath},
                   {"impairment", (*lab_).impairment()},
                   {"parallel", options_.parallel},
                   {"connections", clients.connections},
                   {"requests", clients.requests},
                   {"posts", clients.posts},
                   {"reply_bytes", clients.bytes},
                   {"migrations", clients.migrations},
                   {"relays", clients.relays},
                   {"failed_connections", clients.failed},
                   {"failed_by_kind", verdict.by_how},
                   {"excused", verdict.excused},
                   {"unexcused", verdict.unexcused},
                   {"unexcused_words", verdict.words},
                   {"hung", verdict.hung},
                   {"wrong_bytes", verdict.wrong + record.wrong},
                   {"mixed_replies", verdict.mixed},
                   {"posts_executed_twice", record.posts_twice},
                   {"answered_twice_on_one_connection", record.same_connection},
                   {"gets_executed_again", record.gets_again},
                   {"server_words", record.words},
                   {"broken_for_servers", record.broken},
                   {"broken_words", record.broken_words},
                   {"roles", harvest_.totals()},
                   {"outages", outages()}};
    try {
      result["switch_committed"] = lab::role_number(*lab_, "switch1", "committed");
    } catch (const std::exception&) {
      result["switch_committed"] = nullptr;
    }
    const json links = (*lab_).status().at("impairment");
    result["links"] = links.is_null() ? json() : links.at("links");
    return result;
  }

  int report() {
    json result = document();
    const bool ok = result["unexcused"] == 0 && result["wrong_bytes"] == 0 &&
                    result["mixed_replies"] == 0 && result["posts_executed_twice"] == 0 &&
                    result["answered_twice_on_one_connection"] == 0 && result["requests"] > 0 &&
                    result["migrations"] > 0 && result["migrations"] >= options_.at_least;
    result["ok"] = ok;
    if (options_.json) {
      std::cout << result.dump(2) << std::endl;
    } else {
      for (const auto& [key, value] : result.items())
        if (key != "links" && key != "unexcused_words" && key != "server_words" &&
            key != "broken_words")
          std::cout << key << ": " << value.dump() << '\n';
      for (const char* list : {"unexcused_words", "server_words", "broken_words"})
        for (const json& line : result[list]) std::cout << "  " << line.get<std::string>() << '\n';
      std::cout << (ok ? "OK" : "FAILED") << std::endl;
    }
    return ok ? 0 : 1;
  }

  Options options_;
  SoakLab lab_;
  Chaos chaos_;
  Verdict verdict_;
  Harvest harvest_;
  Record record_;
  std::vector<std::unique_ptr<Server>> servers_;
  std::unique_ptr<Clients> clients_;
  Clock::time_point begun_ = Clock::now(), next_progress_{};
  double ran_ = 0;
};

int run(int argc, char** argv) {
  Options options;
  CLI::App app("A lab with bad links, clients, and roles that are ended at random");
  app.add_option("--seconds", options.seconds, "How long")->capture_default_str();
  app.add_option("--seed", options.seed, "Of all that is random (default: a new one)");
  app.add_option("--parallel", options.parallel, "Connections at a time")->capture_default_str();
  app.add_option("--at-least", options.at_least, "It fails with fewer migrations than this")
      ->capture_default_str();
  app.add_option("--deadline", options.deadline, "Seconds until a request counts as hung")
      ->capture_default_str();
  app.add_option("--impair", options.impair, "As `tcpmig lab up --impair`; \"\" for none")
      ->capture_default_str();
  app.add_option("--datapath", options.datapath, "tc or xdp")
      ->check(CLI::IsMember({"tc", "xdp"}))
      ->capture_default_str();
  app.add_option("--name", options.name, "Of its lab")->capture_default_str();
  app.add_option("--program", options.program, "The tcpmig program (default: $TCPMIG_BIN)");
  app.add_flag("--json", options.json, "The report as JSON");
  app.add_flag("--calm", options.calm, "End no roles");
  CLI11_PARSE(app, argc, argv);
  if (options.program.empty())
    if (const char* program = std::getenv("TCPMIG_BIN")) options.program = program;
  if (options.program.empty()) throw std::runtime_error("say --program PATH");
  if (options.seed == 0) options.seed = std::random_device()() + 1ULL;
  std::cerr << "seed " << options.seed << ", lab " << options.name << std::endl;
  const lab::CatchInterrupts catcher;
  Soak soak(options);
  return soak.skipped() ? 77 : soak.run();
}

}  // namespace
}  // namespace tcpmig::soak

int main(int argc, char** argv) {
  try {
    return tcpmig::soak::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "soak: " << error.what() << '\n';
    return 1;
  }
}
