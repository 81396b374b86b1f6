// SPDX-License-Identifier: MIT
#pragma once
#include <map>

#include "e2e/support.hpp"

namespace tcpmig::e2e {

/// A lab whose servers run the program `roaming` behind a `handoff`, in one pool; requests go to server1 below "/1/", and so on.
class RoamingLab {
 public:
  /// The last `plain` servers have no handoff, and no program.
  explicit RoamingLab(lab::Options options = {}, unsigned plain = 0);
  ~RoamingLab();
  RoamingLab(const RoamingLab&) = delete;
  RoamingLab& operator=(const RoamingLab&) = delete;

  [[nodiscard]] TestLab& lab() noexcept { return *lab_; }
  [[nodiscard]] HttpClient ask(const std::string& path, bool ipv6 = false);
  void start(unsigned number);
  void stop(unsigned number, int signal);
  [[nodiscard]] pid_t pid(unsigned number) const { return programs_.at(number); }
  /// Of server `number`, by its agent.
  [[nodiscard]] std::uint64_t counter(unsigned number, const std::string& name) const;
  [[nodiscard]] std::string output(unsigned number) const;
  [[nodiscard]] std::string agent(unsigned number) const;

 private:
  [[nodiscard]] std::string socket(unsigned number) const;
  lab::TemporaryDirectory directory_{"tcpmig-roaming"};
  std::unique_ptr<TestLab> lab_;
  std::map<unsigned, pid_t> programs_;
};

/// Byte i of every answer of `roaming`.
unsigned char pattern(std::uint64_t i);

/// Reads an answer of `size` bytes, each compared. Empty: all is well; else what is not.
std::string read_answer(HttpClient& client, std::uint64_t size);

}  // namespace tcpmig::e2e
