// SPDX-License-Identifier: MIT
// `tcpmig lab demo`: the programme. What each act shows and checks is in demo_*.cpp.
#include <iostream>

#include "lab/demo.hpp"
#include "lab/demo_parts.hpp"
#include "lab/interrupt.hpp"
#include "lab/lab.hpp"
#include "lab/plan.hpp"

namespace tcpmig::lab {
namespace {

using namespace demo_parts;
constexpr const char* kName = "demo";

/// Removes the lab at the end, however that comes.
class Removal {
 public:
  explicit Removal(bool keep) : keep_(keep) {}
  ~Removal() {
    if (keep_) return;
    try {
      Lab::down(kName);
    } catch (const std::exception& error) {
      std::cerr << "tcpmig: " << error.what() << '\n';
    }
  }
  Removal(const Removal&) = delete;
  Removal& operator=(const Removal&) = delete;

 private:
  bool keep_;
};

std::vector<StockServer> start_servers(const std::vector<ServerKind>& kinds, const Lab& lab,
                                       const std::filesystem::path& directory) {
  std::vector<StockServer> servers;
  servers.reserve(kinds.size());
  for (const ServerKind kind : kinds) {
    const std::string node = "server" + std::to_string(servers.size() + 1);
    servers.emplace_back(
        lab,
        StockServer::Options{
            .kind = kind, .node = node, .documents = directory / "www", .work = directory / node});
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

int verdict(const Report& report, std::chrono::steady_clock::time_point begun) {
  const auto seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  char text[128];
  std::snprintf(text, sizeof text, "%s: %u checks passed, %u failed, %.1f s",
                report.failed() == 0 ? "OK" : "FAILED", report.passed(), report.failed(), seconds);
  std::cout << '\n' << text << std::endl;
  return report.failed() == 0 ? 0 : 1;
}

void act_migration(const DemoOptions& options, const Lab& lab, double seconds,
                   const TemporaryDirectory& directory, Report& report) {
  std::vector<Payload> files = make_files(directory.path());
  std::vector<StockServer> servers = start_servers(options.servers, lab, directory.path());
  show_lab(report, lab, servers, seconds);
  Stage stage{lab, directory.path(), servers, std::move(files), report};
  show_fetches(stage);
  show_path(stage);
  show_phases(stage, options.requests);
}

/// On a kernel without the kfunc: the same lab, with servers that take descriptors.
void act_repair(const DemoOptions& options, const TemporaryDirectory& directory, Report& report) {
  Lab::down(kName);
  const auto file = directory.path() / "repair.toml";
  const auto count = static_cast<unsigned>(options.servers.size());
  write_text(file, repair_config(count, directory.path()));
  const Lab lab =
      Lab::up({.name = kName, .servers = count, .datapath = options.datapath, .config_file = file});
  show_repair(report, lab, directory.path());
}

}  // namespace

int demo(const DemoOptions& options) {
  const CatchInterrupts catcher;
  const auto begun = std::chrono::steady_clock::now();
  const TemporaryDirectory directory("tcpmig-demo");
  const Removal removal(options.keep);
  Report report;
  try {
    const auto count = static_cast<unsigned>(options.servers.size());
    const Lab lab = Lab::up({.name = kName, .servers = count, .datapath = options.datapath});
    const auto seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    const bool kernel_resume = show_machine(report, lab);
    if (kernel_resume && !options.repair)
      act_migration(options, lab, seconds, directory, report);
    else
      act_repair(options, directory, report);
    if (options.keep)
      std::cout << "\nThe lab stays up: tcpmig lab exec --name " << kName
                << " client1 -- curl http://" << kVip4 << "/\n";
    return verdict(report, begun);
  } catch (const Interrupted&) {
    std::cerr << "\ninterrupted: the lab is removed\n";
    return 130;
  }
}

}  // namespace tcpmig::lab
