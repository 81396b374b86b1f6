// SPDX-License-Identifier: MIT
#pragma once
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "conn_world.hpp"
#include "lab/payload.hpp"
#include "lab/process.hpp"
#include "sys/check.hpp"

/// What the tests of `tcpmig freeze` and `tcpmig resume` work with.
namespace freeze_test {

namespace lab = tcpmig::lab;
namespace sys = tcpmig::sys;
using conn_test::Namespace;
using conn_test::wait_until;
using sys::UniqueFd;

/// A program for python3: the unmodified process. Its connection is descriptor 0; it says what becomes of it, line by line.
extern const char* const kVictim;

std::string read_text(const std::filesystem::path& file);

struct Output {
  int code = -1;
  std::string out, error;
};

/// Everything that a test makes outside of its namespaces.
class Bench {
 public:
  [[nodiscard]] std::filesystem::path file(const std::string& name) const {
    return directory_.path() / name;
  }
  [[nodiscard]] std::string snapshot() const { return file("c.snap"); }

  Output run(const std::vector<std::string>& argv, int netns = -1) {
    const UniqueFd out = writable("out"), error = writable("error"), nothing = null();
    const pid_t child = lab::start({.argv = argv,
                                    .netns_fd = netns,
                                    .input = nothing.get(),
                                    .output = out.get(),
                                    .error = error.get()});
    Output output;
    output.code = lab::wait_for(child);
    output.out = read_text(file("out"));
    output.error = read_text(file("error"));
    return output;
  }
  Output tcpmig(std::vector<std::string> argv, int netns = -1) {
    argv.insert(argv.begin(), program());
    return run(argv, netns);
  }
  static std::string program() {
    const char* path = std::getenv("TCPMIG_BIN");
    REQUIRE(path != nullptr);
    return path;
  }
  /// A file to write standard output to.
  [[nodiscard]] UniqueFd writable(const std::string& name) const {
    return UniqueFd(sys::check(
        "open", ::open(file(name).c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)));
  }
  static UniqueFd null() {
    return UniqueFd(sys::check("open", ::open("/dev/null", O_RDWR | O_CLOEXEC)));
  }

 private:
  lab::TemporaryDirectory directory_{"tcpmig-freeze"};
};

/// A running python3 with the connection as its descriptor 0.
class Victim {
 public:
  Victim(const Bench& bench, UniqueFd connection, const std::string& mode)
      : said_(bench.file("said")) {
    const UniqueFd out = bench.writable("said");
    const UniqueFd marker = bench.writable("marker");
    pid_ = lab::start({.argv = {"python3", "-c", kVictim, mode, bench.file("marker")},
                       .input = connection.get(),
                       .output = out.get(),
                       .death_signal = SIGKILL});
    wait_until("the victim", [&] { return said().starts_with("ready"); });
  }
  ~Victim() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    lab::wait_for(pid_);
  }
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;
  [[nodiscard]] std::string pid() const { return std::to_string(pid_); }
  [[nodiscard]] std::string said() const { return read_text(said_); }
  /// "S", "t", ..
  [[nodiscard]] std::string state() const {
    std::ifstream file("/proc/" + pid() + "/stat");
    std::string number, name, state;
    file >> number >> name >> state;
    return state;
  }
  /// In a system call that waits.
  void await_sleep() const {
    wait_until("the victim waits", [&] { return state() == "S"; });
  }
  int wait() {
    const pid_t child = std::exchange(pid_, 0);
    return lab::wait_for(child);
  }

 private:
  std::filesystem::path said_;
  pid_t pid_ = 0;
};

/// `tcpmig resume .. -- PROGRAM`, running.
class Resumed {
 public:
  Resumed(const Bench& bench, std::vector<std::string> words, const Namespace& where)
      : errors_(bench.file("resumed")) {
    words.insert(words.begin(), {Bench::program(), "resume", bench.snapshot()});
    const UniqueFd nothing = Bench::null(), error = bench.writable("resumed");
    pid_ = lab::start({.argv = words,
                       .netns_fd = where.fd(),
                       .input = nothing.get(),
                       .output = nothing.get(),
                       .error = error.get(),
                       .death_signal = SIGKILL});
  }
  ~Resumed() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    lab::wait_for(pid_);
  }
  Resumed(const Resumed&) = delete;
  Resumed& operator=(const Resumed&) = delete;
  int wait() { return lab::wait_for(std::exchange(pid_, 0)); }
  [[nodiscard]] std::string error() const { return read_text(errors_); }
  [[nodiscard]] pid_t pid() const { return pid_; }
  /// What it executes now.
  [[nodiscard]] std::string program() const {
    const auto process = lab::identify(pid_);
    return process ? std::filesystem::path(process->program).filename().string() : "";
  }

 private:
  std::filesystem::path errors_;
  pid_t pid_ = 0;
};

}  // namespace freeze_test
