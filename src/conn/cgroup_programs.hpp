// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <string>

#include "conn/cgroup.hpp"

struct dump;
struct window;

namespace tcpmig::conn {

/// Before Linux 6.2: the dump program reads a copy of the socket.
bool dumps_by_copy();

/// The programs that act on every socket of this process: dump (cgroup/getsockopt) and window
/// (sockops), on a cgroup of its own. A process has one of a name, whatever the number of its kits;
/// links held by descriptors: they end with the process.
class CgroupPrograms {
 public:
  static std::shared_ptr<CgroupPrograms> of_process(const std::string& name);
  explicit CgroupPrograms(const std::string& name);

  /// Loads and attaches, once; throws std::system_error. An answer of the program on a socket of
  /// its own is what counts.
  void attach_dump(bool by_copy = dumps_by_copy());
  void attach_window();

 private:
  struct Destroy {
    void operator()(dump* skeleton) const noexcept;
    void operator()(window* skeleton) const noexcept;
  };
  ProcessCgroup cgroup_;
  std::unique_ptr<dump, Destroy> dump_;
  std::unique_ptr<window, Destroy> window_;
};

}  // namespace tcpmig::conn
