// SPDX-License-Identifier: MIT
// tcpmig-bench: measures, and writes one JSON file for each benchmark. report.py makes tables and plots of them.
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "benchmark.hpp"
#include "figures.hpp"
#include "lab/interrupt.hpp"
#include "lab/process.hpp"
#include "processes.hpp"
#include "sys/check.hpp"

namespace tcpmig::bench {

using Clock = std::chrono::steady_clock;

void say(const std::string& text) {
  static const auto begun = Clock::now();
  std::fprintf(stderr, "%4.0f s  %s\n", seconds(Clock::now() - begun), text.c_str());
}

const std::vector<Benchmark>& benchmarks() {
  static const std::vector<Benchmark> all{
      {"latency", "connect to last byte of 1 KB, one at a time; the phases of a transfer", latency},
      {"throughput", "requests a second, closed loop; processor time of dispatcher and proxies",
       throughput},
      {"switch", "nanoseconds a packet takes in the switch's programs, beside two references",
       switch_packets},
      {"open-loop", "goodput and latency at a fixed arrival rate, 10 % to 150 % of capacity",
       open_loop},
      {"resume", "freeze, transfer and resume, each alone, with 0 to 128 KB that go along", resume},
      {"addresses", "10 to 10,000 virtual private addresses on a server, against one", addresses},
      {"scale", "100,000 live connections; 50,000 that wait for their request; transfers a second",
       scale},
      {"paper", "what is added to the direct way, replies of 1 KB to 100 MB, mini_httpd", paper},
  };
  return all;
}

namespace {

namespace fs = std::filesystem;

struct Options {
  Plan plan;
  fs::path out = "build/bench";
  std::vector<std::string> names;
  bool list = false;
};

/// Replaced by rename, so that a file is a whole result or the one before.
void write(const fs::path& file, const nlohmann::json& document) {
  const fs::path fresh = file.string() + ".new";
  std::ofstream output(fresh);
  if (!(output << document.dump(1) << '\n' << std::flush))
    throw std::runtime_error("cannot write " + fresh.string());
  output.close();
  fs::rename(fresh, file);
}

void run_one(const Benchmark& benchmark, const Options& options) {
  say(benchmark.name + ": " + benchmark.what);
  const auto begun = Clock::now();
  nlohmann::json document = {{"name", benchmark.name},
                             {"what", benchmark.what},
                             {"quick", options.plan.quick},
                             {"machine", machine(options.plan)}};
  document["result"] = benchmark.run(options.plan);
  document["seconds"] = seconds(Clock::now() - begun);
  write(options.out / (benchmark.name + ".json"), document);
}

const Benchmark& find(const std::string& name) {
  const auto found = std::ranges::find(benchmarks(), name, &Benchmark::name);
  if (found == benchmarks().end())
    throw std::invalid_argument("no benchmark \"" + name + "\": --list names them");
  return *found;
}

pid_t measuring = -1;

/// The kernel shares processors between sessions first (sched_autogroup), and whoever has called us may have given his a low priority.
/// The lab's roles have sessions of their own; so has whatever measures, or the clients would starve and the servers not. This process only
/// waits, and passes signals on.
int in_session_of_its_own(const std::function<int()>& work) {
  const pid_t parent = ::getpid();
  measuring = sys::check("fork", ::fork());
  if (measuring == 0) {
    ::setsid();
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) return 1;
    return work();
  }
  for (const int number : {SIGINT, SIGTERM, SIGHUP})
    ::signal(number, [](int received) { ::kill(measuring, received); });
  return lab::wait_for(measuring);
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Measures tcpmig beside others, and writes JSON");
  app.add_option("NAME", options.names, "Which benchmarks (default: all)");
  app.add_option("--program", options.plan.program, "The tcpmig program")->required();
  app.add_option("--out", options.out, "Folder for the results")->capture_default_str();
  app.add_flag("--quick", options.plan.quick, "Few and short rounds: does it work?");
  CLI11_PARSE(app, argc, argv);
  if (::geteuid() != 0) throw std::runtime_error("a lab needs root: run it with sudo");
  options.plan.program = fs::canonical(options.plan.program);
  fs::create_directories(options.out);
  raise_descriptor_limit();  // children have it from here
  if (options.names.empty())
    for (const Benchmark& benchmark : benchmarks()) options.names.push_back(benchmark.name);
  for (const std::string& name : options.names) find(name);
  return in_session_of_its_own([&] {
    const lab::CatchInterrupts catcher;
    for (const std::string& name : options.names) run_one(find(name), options);
    say("done");
    return 0;
  });
}

}  // namespace
}  // namespace tcpmig::bench

int main(int argc, char** argv) {
  try {
    return tcpmig::bench::run(argc, argv);
  } catch (const tcpmig::lab::Interrupted&) {
    std::cerr << "bench: interrupted\n";
    return 130;
  } catch (const std::exception& error) {
    std::cerr << "bench: " << error.what() << '\n';
    return 1;
  }
}
