// SPDX-License-Identifier: MIT
// On what the figures were measured: without it they say nothing.
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "benchmark.hpp"

namespace tcpmig::bench {
namespace {

using nlohmann::json;

/// The first line that a command writes, stderr included; empty: it says nothing, or is not there.
std::string first_line_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen((command + " 2>&1").c_str(), "r"),
                                                   ::pclose);
  char line[512] = {};
  if (!pipe || std::fgets(line, sizeof line, pipe.get()) == nullptr) return {};
  std::string text = line;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  while (std::fgets(line, sizeof line, pipe.get()) != nullptr) {
  }
  return text;
}

std::string package(const std::string& name) {
  return first_line_of("dpkg-query -W -f '${Version}\\n' " + name);
}

std::string processor() {
  std::ifstream input("/proc/cpuinfo");
  for (std::string line; std::getline(input, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::string now() {
  char text[32];
  const time_t time = ::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

json machine(const Plan& plan) {
  utsname system{};
  ::uname(&system);
  struct sysinfo memory{};
  ::sysinfo(&memory);
  double load[3] = {};
  ::getloadavg(load, 3);
  json versions = {{"tcpmig", first_line_of(plan.program.string() + " version")}};
  for (const char* name : {"haproxy", "nginx-light", "mini-httpd", "wrk", "libbpf1", "libc6"})
    versions[name] = package(name);
  return {{"commit", first_line_of("git describe --always --dirty --abbrev=12")},
          {"begun", now()},
          {"kernel", std::string(system.sysname) + " " + system.release + " " + system.machine},
          {"processor", processor()},
          {"cores", std::thread::hardware_concurrency()},
          {"memory_gib", double(memory.totalram) * memory.mem_unit / (1 << 30)},
          {"load_before", load[0]},
          {"versions", versions}};
}

}  // namespace tcpmig::bench
