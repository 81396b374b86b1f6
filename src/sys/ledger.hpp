// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "sys/netlink.hpp"

namespace tcpmig::sys {

/// What one role has changed on its host: sysctls (with the value found), routes, rules, addresses. Every entry is written to a
/// file before the change is made, so that undo() gives all of it back, also after kill -9. What existed already when we wanted to
/// set it is foreign: it is left alone and not recorded. Entries are idempotent: setting the same again changes nothing.
/// The file is JSON, replaced by rename; one process at a time (the role's lock) uses it.
class Ledger {
 public:
  /// Reads `file` if it is there (a former run's entries are adopted). The directory is made.
  /// A file written on another boot or in another network namespace speaks of things that are gone: it is dropped.
  /// `proc_sys` is for tests.
  Ledger(std::filesystem::path file, Netlink& netlink,
         std::filesystem::path proc_sys = "/proc/sys");

  /// Path below /proc/sys with dots or slashes ("net.ipv4.ip_forward"). Records the value found, once. No-op when it has `value`.
  void set_sysctl(const std::string& name, const std::string& value);
  void add_route(const Route& route);
  /// Writes down, all at once, what add_route() is about to make of each: for many. (The file is written anew for each change.)
  void expect_routes(std::span<const Route> routes);
  void add_rule(const Rule& rule);
  void add_address(const std::string& link, const Prefix& prefix);
  void remove_route(const Route& route);  ///< only what the ledger holds

  /// Starts an adoption: entries not touched again until finish_adoption() are undone there (our own stale rest).
  void begin_adoption();
  void finish_adoption();

  /// Gives everything back in reverse order; keeps going on errors and throws the first at the end. Removes the file; what could
  /// not be given back stays in it for another try.
  void undo();

  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

 private:
  struct State;  // see ledger.cpp: keeps JSON out of this header
  std::unique_ptr<State> state_;
};

/// Reads one sysctl of this thread's network namespace (trimmed). Throws when it does not exist.
std::string read_sysctl(const std::string& name);

}  // namespace tcpmig::sys
