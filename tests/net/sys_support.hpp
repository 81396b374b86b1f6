// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "sys/address.hpp"
#include "sys/bpf.hpp"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"
#include "sys/unique_fd.hpp"

namespace sys_test {

using tcpmig::sys::Address;
using tcpmig::sys::Endpoint;
using tcpmig::sys::Prefix;
using tcpmig::sys::UniqueFd;

/// Prints why this machine cannot run the test, and returns true.
bool cannot_run_here();

inline Address address(std::string_view text) { return Address::parse(text).value(); }
inline Prefix prefix(std::string_view text) { return Prefix::parse(text).value(); }

/// A network namespace tmt-sys-<pid>-<suffix>, gone with the object.
class Namespace {
 public:
  explicit Namespace(const std::string& suffix);
  ~Namespace();
  Namespace(const Namespace&) = delete;
  Namespace& operator=(const Namespace&) = delete;
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] tcpmig::sys::EnterNetns enter() const { return tcpmig::sys::EnterNetns(name_); }

 private:
  std::string name_;
};

/// Two namespaces joined by a veth:   left: l0 10.9.0.1/24 fd09::1/64 ---- r0 10.9.0.2/24
/// fd09::2/64 :right
class Pair {
 public:
  Pair();
  Namespace left;
  Namespace right;
  int left_index = 0;
  int right_index = 0;
  /// A UDP datagram of the left one reaches a socket of the right one.
  [[nodiscard]] bool delivers() const;
};

/// A directory for pins /sys/fs/bpf/tcpmig-test-<pid>, gone with the object.
class Pins {
 public:
  Pins();
  ~Pins();
  Pins(const Pins&) = delete;
  Pins& operator=(const Pins&) = delete;
  [[nodiscard]] const tcpmig::sys::PinDirectory& directory() const noexcept { return directory_; }
  operator const tcpmig::sys::PinDirectory&() const noexcept { return directory_; }

 private:
  tcpmig::sys::PinDirectory directory_;
};

/// A program that does nothing but answer `result`.
UniqueFd load_tc(int result, const char* name = "tmt_tc");
UniqueFd load_xdp(int result, const char* name = "tmt_xdp");

/// A bound socket; `type` is SOCK_STREAM (listening) or SOCK_DGRAM.
UniqueFd bound_socket(int type, const Endpoint& local);
UniqueFd connected_socket(const Endpoint& peer);
UniqueFd accepted_socket(const UniqueFd& listener);
Endpoint name_of(const UniqueFd& socket);

/// Waits until something can be read.
bool readable_within(int fd, std::chrono::milliseconds deadline);
/// Waits until `condition` holds.
bool holds_within(std::chrono::milliseconds deadline, const std::function<bool()>& condition);

}  // namespace sys_test
