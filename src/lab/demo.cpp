// SPDX-License-Identifier: MIT
// `tcpmig lab demo`: the programme. What each act shows and checks is in demo_*.cpp.
#include <iostream>
#include <optional>

#include "lab/demo.hpp"
#include "lab/demo_parts.hpp"
#include "lab/interrupt.hpp"
#include "lab/lab.hpp"
#include "lab/plan.hpp"

namespace tcpmig::lab {
namespace {

using namespace demo_parts;

/// A lab that is removed with the object. It exists only once the lab is up: a lab of that name which
/// was there before is somebody else's, and `up` says so.
class DemoLab {
 public:
  explicit DemoLab(const lab::Options& options) : lab_(Lab::up(options)) {}
  ~DemoLab() {
    if (keep_) return;
    try {
      Lab::down(lab_.name());
    } catch (const std::exception& error) {
      std::cerr << "tcpmig: " << error.what() << '\n';
    }
  }
  DemoLab(const DemoLab&) = delete;
  DemoLab& operator=(const DemoLab&) = delete;
  const Lab& operator*() const noexcept { return lab_; }
  void keep() noexcept { keep_ = true; }

 private:
  Lab lab_;
  bool keep_ = false;
};

std::vector<StockServer> start_servers(const std::vector<ServerKind>& kinds, const Lab& lab,
                                       const std::filesystem::path& directory, bool repair) {
  std::vector<std::string> under;
  if (repair) under = {std::filesystem::read_symlink("/proc/self/exe"), "exec", "--"};
  std::vector<StockServer> servers;
  servers.reserve(kinds.size());
  for (const ServerKind kind : kinds) {
    const std::string node = "server" + std::to_string(servers.size() + 1);
    servers.emplace_back(lab, StockServer::Options{.kind = kind,
                                                   .node = node,
                                                   .documents = directory / "www",
                                                   .work = directory / node,
                                                   .under = under});
  }
  return servers;
}

std::vector<Payload> make_files(const std::filesystem::path& directory) {
  std::filesystem::create_directories(directory / "www");
  std::vector<Payload> files;
  for (const auto& [name, size] : {std::pair("1k.bin", 1UL << 10), std::pair("1m.bin", 1UL << 20),
                                   std::pair("100m.bin", 100UL << 20)})
    files.push_back(make_payload(directory / "www", name, size));
  return files;
}

double seconds_since(std::chrono::steady_clock::time_point begun) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

int verdict(const DemoOptions& options, Report& report, double seconds) {
  if (options.json) {
    nlohmann::json& document = report.document();
    document["ok"] = report.failed() == 0;
    document["passed"] = report.passed();
    document["failed"] = report.failed();
    document["took_s"] = seconds;
    std::cout << document.dump(2) << std::endl;
    return report.failed() == 0 ? 0 : 1;
  }
  char text[128];
  std::snprintf(text, sizeof text, "%s: %u checks passed, %u failed, %.1f s",
                report.failed() == 0 ? "OK" : "FAILED", report.passed(), report.failed(), seconds);
  std::cout << '\n' << text << std::endl;
  return report.failed() == 0 ? 0 : 1;
}

/// Below the lab's own directory, so that `lab down` removes it, whatever has become of us.
std::filesystem::path work_directory(const Lab& lab) {
  constexpr std::uintmax_t kNeeded = 220UL << 20;  // the files, and a copy of the largest
  const auto directory = Paths(lab.name()).run / "demo";
  std::filesystem::create_directories(directory);
  if (const auto there = std::filesystem::space(directory).available; there < kNeeded)
    throw std::runtime_error("the demo needs " + human_size(kNeeded) + " below /run, there are " +
                             human_size(there >> 20 << 20) + " (df /run)");
  return directory;
}

void act_migration(const DemoOptions& options, const Lab& lab, double seconds, Report& report,
                   bool repair) {
  const auto directory = work_directory(lab);
  std::vector<Payload> files = make_files(directory);
  std::vector<StockServer> servers = start_servers(options.servers, lab, directory, repair);
  show_lab(report, lab, servers, seconds);
  Stage stage{lab, directory, servers, std::move(files), report};
  show_fetches(stage);
  show_path(stage);
  show_phases(stage, options.requests);
  if (options.keep)
    for (StockServer& server : servers) server.release();
}

/// The same lab, with servers that take descriptors.
lab::Options descriptor_options(const DemoOptions& options) {
  const auto count = static_cast<unsigned>(options.servers.size());
  return {.name = options.name,
          .servers = count,
          .datapath = options.datapath,
          .config_text = repair_config(count, Paths(options.name).run)};
}

void show_how_to_go_on(const Lab& lab) {
  const std::string name = " --name " + lab.name();
  std::cout << "\nThe lab stays up, its servers with it:\n  tcpmig lab exec" << name
            << " client1 -- curl -s http://" << kVip4 << "/1m.bin -o /dev/null\n  tcpmig lab exec"
            << name << " switch1 -- tcpmig flows\n  tcpmig lab down" << name
            << "    ends and removes all\n";
}

int play(const DemoOptions& options) {
  const auto begun = std::chrono::steady_clock::now();
  Report report(options.json);
  const auto count = static_cast<unsigned>(options.servers.size());
  std::optional<DemoLab> lab;
  lab.emplace(lab::Options{.name = options.name, .servers = count, .datapath = options.datapath});
  const double seconds = seconds_since(begun);
  const bool kernel = show_machine(report, **lab) && !options.repair;
  if (!kernel) {
    lab.reset();
    lab.emplace(descriptor_options(options));
    show_repair(report, **lab, Paths(options.name).run);
    lab.reset();
    lab.emplace(lab::Options{.name = options.name,
                             .servers = count,
                             .datapath = options.datapath,
                             .resume = config::Resume::kRepair});
  }
  act_migration(options, **lab, seconds, report, !kernel);
  if (options.keep) {
    lab->keep();
    if (!options.json) show_how_to_go_on(**lab);
  }
  return verdict(options, report, seconds_since(begun));
}

}  // namespace

int demo(const DemoOptions& options) {
  const CatchInterrupts catcher;
  try {
    return play(options);
  } catch (const Interrupted&) {
    std::cerr << "\ninterrupted: the lab is removed\n";
    return 130;
  }
}

}  // namespace tcpmig::lab
