// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "agent/agent.hpp"
#include "lab/lab.hpp"
#include "lab/payload.hpp"
#include "lab/stock_servers.hpp"

/// The acts of `tcpmig lab demo`. Each prints what it does and checks it; demo.cpp is the
/// programme.
namespace tcpmig::lab::demo_parts {

/// What is printed, what is kept as JSON, and the verdict.
class Report {
 public:
  /// `quiet`: nothing is printed, since stdout is for the document.
  explicit Report(bool quiet) : quiet_(quiet) {}
  void title(const std::string& text);
  void line(const std::string& text = {});
  /// A row of cells, each padded to its column.
  void row(const std::vector<std::string>& cells, const std::vector<unsigned>& widths);
  /// Remembers whether something is as it should be; `what` says how that is. A failure is printed at
  /// once, with what is known of it.
  bool check(bool ok, const std::string& what, const std::string& detail = {});
  /// What the acts have found out, for `--json`.
  [[nodiscard]] nlohmann::json& document() noexcept { return document_; }
  [[nodiscard]] unsigned passed() const noexcept { return passed_; }
  [[nodiscard]] unsigned failed() const noexcept { return failed_; }

 private:
  bool quiet_;
  unsigned passed_ = 0, failed_ = 0;
  nlohmann::json document_ = nlohmann::json::object();
};

struct Stage {
  const Lab& lab;
  const std::filesystem::path& directory;
  std::vector<StockServer>& servers;
  std::vector<Payload> files;  ///< 1 KB, 1 MB, 100 MB
  Report& report;
};

/// The machine in words. False: it cannot do the kernel resume.
bool show_machine(Report& report, const Lab& lab);
void show_lab(Report& report, const Lab& lab, const std::vector<StockServer>& servers,
              double seconds);
/// wget and curl, every size, both families.
void show_fetches(Stage& stage);
/// How long the phases of a transfer take, over many requests.
void show_phases(Stage& stage, unsigned requests);
/// The dispatcher sees nothing of a connection after its transfer.
void show_path(Stage& stage);
/// A program that is handed its connections as descriptors.
void show_repair(Report& report, const Lab& lab, const std::filesystem::path& directory);
/// A configuration whose servers take descriptors, for show_repair().
std::string repair_config(unsigned servers, const std::filesystem::path& directory);

std::string milliseconds(std::chrono::nanoseconds time);  ///< "12.3 ms"
std::string microseconds(std::chrono::nanoseconds time);  ///< "123"

}  // namespace tcpmig::lab::demo_parts
