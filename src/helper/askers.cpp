// SPDX-License-Identifier: MIT
#include "helper/askers.hpp"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "conn/socket_option.hpp"
#include "sys/errors.hpp"

namespace tcpmig::helper {
namespace {

/// Before any thread is made: the two calls are not for several.
uid_t user_named(const std::string& name) {
  const passwd* found = ::getpwnam(name.c_str());
  if (found == nullptr) throw sys::WrongSetup("no user \"" + name + "\" on this machine");
  return found->pw_uid;
}
gid_t group_named(const std::string& name) {
  const group* found = ::getgrnam(name.c_str());
  if (found == nullptr) throw sys::WrongSetup("no group \"" + name + "\" on this machine");
  return found->gr_gid;
}

ucred credentials_of(int client) {
  return conn::get_option<ucred>(client, SOL_SOCKET, SO_PEERCRED, "getsockopt SO_PEERCRED");
}

/// Without that in its credentials.
std::vector<gid_t> further_groups_of(int client) {
  std::vector<gid_t> groups(32);
  for (;;) {
    auto length = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    const bool fits = ::getsockopt(client, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &length) == 0;
    if (!fits && errno != ERANGE) return {};
    groups.resize(length / sizeof(gid_t));
    if (fits) return groups;
  }
}

}  // namespace

Askers::Askers(const Options& options) : users_{0, ::geteuid()} {
  for (const std::string& name : options.users) users_.insert(user_named(name));
  if (!options.group.empty()) group_ = group_named(options.group);
}

mode_t Askers::mode() const noexcept {
  const bool others =
      std::ranges::any_of(users_, [](uid_t user) { return user != 0 && user != ::geteuid(); });
  return others ? 0666 : group_ ? 0660 : 0600;
}

bool Askers::may_ask(int client) const {
  const ucred who = credentials_of(client);
  if (users_.contains(who.uid)) return true;
  if (!group_) return false;
  return who.gid == *group_ || std::ranges::count(further_groups_of(client), *group_) != 0;
}

bool Slots::take(uid_t user) {
  const std::lock_guard guard(mutex_);
  int& taken = taken_[user];
  if (taken == kOfOneUser || all_taken_ == kAll) return false;
  ++taken;
  ++all_taken_;
  return true;
}

void Slots::give_back(uid_t user) {
  const std::lock_guard guard(mutex_);
  --all_taken_;
  if (--taken_[user] == 0) taken_.erase(user);
}

bool Slots::all_free() {
  const std::lock_guard guard(mutex_);
  return all_taken_ == 0;
}

uid_t user_of(int client) { return credentials_of(client).uid; }

}  // namespace tcpmig::helper
