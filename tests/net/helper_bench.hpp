// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "net/conn_world.hpp"

// `tcpmig repair-helper` in a namespace of the test, and processes without rights beside it.
namespace helper_test {

using conn_test::Bytes;
using tcpmig::sys::UniqueFd;

constexpr uid_t kNobody = 65534;

/// A folder that every user can look into; removed at the end.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ + "/" + name; }

 private:
  std::string folder_;
};

/// The program of the build, run as root in `where`; ended at the end of the test.
class Helper {
 public:
  Helper(const conn_test::Namespace& where, std::string path,
         const std::vector<std::string>& arguments = {"--allow-user", "nobody"});
  ~Helper();
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  /// Its wait status, after a signal.
  int end_by(int signal);
  /// As after a kill.
  void start_again();

 private:
  void start();
  const conn_test::Namespace& where_;
  std::string path_;
  std::vector<std::string> arguments_;
  pid_t pid_ = -1;
};

/// A program that ends by itself, as root: what it wrote to stderr, and its exit code.
struct Ended {
  int code = -1;
  std::string said;
};
Ended run_helper(const conn_test::Namespace& where, const std::vector<std::string>& arguments);

/// A forked process in `where`, as user and group 65534 without any capability. `body` gets its end of a stream socket; what it throws is printed and makes the
/// exit code 1.
class Nobody {
 public:
  Nobody(const conn_test::Namespace& where, const std::function<void(int channel)>& body);
  ~Nobody();
  Nobody(const Nobody&) = delete;
  Nobody& operator=(const Nobody&) = delete;
  [[nodiscard]] int channel() const noexcept { return channel_.get(); }
  /// Its exit code, at its end.
  int wait();

 private:
  UniqueFd channel_;
  pid_t pid_ = -1;
};

/// Bytes of any length over a channel, and words of one byte.
void send_bytes(int channel, const Bytes& bytes);
Bytes receive_bytes(int channel);
void say(int channel, char word);
char hear(int channel);

/// One datagram of whatever bytes and descriptors to a helper; its answer, or -1: it closed without one.
int ask(const std::string& path, std::span<const std::byte> bytes, const std::vector<int>& fds);
UniqueFd connect_to(const std::string& path);

}  // namespace helper_test
