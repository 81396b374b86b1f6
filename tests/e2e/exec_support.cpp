// SPDX-License-Identifier: MIT
#include "e2e/exec_support.hpp"

#include <signal.h>

#include <cstdlib>
#include <stdexcept>

namespace tcpmig::e2e {

std::string program_file(const std::string& name) {
  const char* directory = std::getenv("TCPMIG_TEST_PROGRAMS");
  const auto beside = std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
  return directory == nullptr ? beside.string() : std::string(directory) + "/" + name;
}

ExecProgram::ExecProgram(const TestLab& lab, const std::vector<std::string>& command,
                         const std::vector<std::string>& how)
    : log_(lab.directory() / "program.log") {
  std::vector<std::string> words{program().string()};
  if (how.empty()) words.clear();
  words.insert(words.end(), how.begin(), how.end());
  words.insert(words.end(), command.begin(), command.end());
  pid_ = lab->spawn("server1", words, log_);
  for (const sys::Address& own : lab->node("server1").addresses)
    if (!lab::wait_until(
            30s, [&] { return lab::can_connect(lab.netns("server1"), {own, 80}, 500ms); })) {
      stop(SIGKILL);
      throw std::runtime_error(command.at(0) + " does not listen:\n" + output());
    }
}

ExecProgram::~ExecProgram() { stop(SIGKILL); }

void ExecProgram::stop(int signal) {
  if (pid_ <= 0) return;
  ::kill(-pid_, signal);  // it leads a session of its own
  lab::wait_for(pid_);
  pid_ = -1;
}

std::string ExecProgram::output() const { return read_file(log_); }

std::uint64_t relays(const TestLab& lab) {
  const auto status = lab::role_status(*lab, "dispatcher1");
  const auto reasons = status.value("relayed", nlohmann::json::object());
  std::uint64_t all = 0;
  for (const auto& [reason, count] : reasons.items()) all += count.get<std::uint64_t>();
  return all;
}

}  // namespace tcpmig::e2e
