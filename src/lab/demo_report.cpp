// SPDX-License-Identifier: MIT
#include <sys/utsname.h>

#include <cstdio>
#include <iostream>

#include "lab/demo_parts.hpp"
#include "sys/netns.hpp"

namespace tcpmig::lab::demo_parts {

void Report::title(const std::string& text) {
  if (!quiet_) std::cout << '\n' << text << '\n';
}

void Report::line(const std::string& text) {
  if (!quiet_) std::cout << (text.empty() ? "" : "  ") << text << std::endl;
}

void Report::row(const std::vector<std::string>& cells, const std::vector<unsigned>& widths) {
  std::string text;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    text += cells[i];
    if (i + 1 < cells.size())
      text.append(cells[i].size() < widths.at(i) ? widths[i] - cells[i].size() : 1, ' ');
  }
  line(text);
}

bool Report::check(bool ok, const std::string& what, const std::string& detail) {
  ++(ok ? passed_ : failed_);
  document_["checks"].push_back({{"ok", ok}, {"what", what}});
  if (!ok && !detail.empty()) document_["checks"].back()["detail"] = detail;
  if (!ok) line("FAILED: " + what + (detail.empty() ? "" : ": " + detail));
  return ok;
}

std::string milliseconds(std::chrono::nanoseconds time) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f ms", static_cast<double>(time.count()) / 1e6);
  return text;
}

std::string microseconds(std::chrono::nanoseconds time) {
  return std::to_string((time.count() + 500) / 1000);
}

bool show_machine(Report& report, const Lab& lab) {
  utsname name{};
  ::uname(&name);
  report.title("This machine: Linux " + std::string(name.release) + " " + name.machine);
  const config::Node* server = lab.config().find_node("server1");
  const sys::EnterNetns inside(lab.node("server1").netns);
  bool kernel_resume = true;
  nlohmann::json& machine = report.document()["machine"];
  machine["kernel"] = name.release;
  machine["architecture"] = name.machine;
  for (const agent::Finding& finding : agent::check(lab.config(), *server)) {
    report.row({finding.ok ? "ok" : "--", finding.name, finding.detail}, {4, 20});
    machine["findings"].push_back(
        {{"name", finding.name}, {"ok", finding.ok}, {"detail", finding.detail}});
    if (finding.ok) continue;
    report.line("      it costs: " + finding.cost);
    report.line("      to do:    " + finding.fix);
    if (finding.name == "kfunc") kernel_resume = false;
  }
  return kernel_resume;
}

void show_lab(Report& report, const Lab& lab, const std::vector<StockServer>& servers,
              double seconds) {
  char time[32];
  std::snprintf(time, sizeof time, "%.1f s", seconds);
  report.document()["lab"] = {{"name", lab.name()}, {"up_s", seconds}};
  report.title("The lab \"" + lab.name() + "\": a network namespace for each machine, up in " +
               time);
  for (const Node& node : lab.nodes()) {
    if (node.role == "fabric") continue;
    std::string what;
    if (node.role == "client") what = "wget and curl";
    if (node.role == "switch") what = "routes, and rewrites addresses in BPF";
    if (node.role == "dispatcher") what = "accepts, reads the request, hands the connection on";
    for (const StockServer& server : servers)
      if (server.node() == node.name)
        what = to_string(server.kind()) + ", as Debian ships it, process " +
               std::to_string(server.pid());
    report.row({node.name, node.addresses.at(0).str(), node.addresses.at(1).str(), what},
               {13, 11, 12});
  }
  const config::Service& service = lab.config().services.at(0);
  report.line("The service is " + service.vip4.str() + " and " + service.vip6.str() + ", port " +
              std::to_string(service.port) + "; clients know nothing else.");
}

}  // namespace tcpmig::lab::demo_parts
