// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <string>

#include "sys/unique_fd.hpp"

namespace tcpmig::sys {

/// Opens the network namespace of this thread.
UniqueFd current_netns();

/// Creates a persistent network namespace visible to `ip netns` (/run/netns/NAME), with lo up. Throws if it exists.
void create_netns(const std::string& name);
/// Removes it (the kernel frees it when the last socket in it goes). False: did not exist. Works on half-made leftovers.
bool remove_netns(const std::string& name);
/// Opens /run/netns/NAME; throws when there is none.
UniqueFd open_netns(const std::string& name);

/// Puts the calling thread into a network namespace (setns(CLONE_NEWNET) only: /sys and so the pins stay visible) and back at the
/// end of its life. A socket keeps the namespace it was made in.
class EnterNetns {
 public:
  explicit EnterNetns(int netns_fd);
  explicit EnterNetns(const std::string& name);
  ~EnterNetns();
  EnterNetns(const EnterNetns&) = delete;
  EnterNetns& operator=(const EnterNetns&) = delete;

 private:
  UniqueFd previous_;
};

}  // namespace tcpmig::sys
