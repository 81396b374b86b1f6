// SPDX-License-Identifier: MIT
#pragma once
#include <span>
#include <stdexcept>
#include <string>

#include "doctor/doctor.hpp"

namespace tcpmig::doctor {

/// What it takes to try something.
enum Needs : unsigned {
  kNothing = 0,
  kNetwork = 1,  ///< a network namespace of our own, with CAP_NET_ADMIN and CAP_NET_RAW over it
  kBpf = 2,      ///< CAP_BPF and CAP_NET_ADMIN over the machine
  kAdmin = 4,    ///< CAP_SYS_ADMIN over the machine
};

/// One thing to try. Throws when it is not there, with what was seen; the result is what was found.
using Probe = std::string (*)();
struct Check {
  const char* name;
  unsigned roles;
  unsigned needs;
  Probe probe;
  Verdict without;  ///< the verdict where it is not there
  const char* cost;
  const char* fix;
};

/// Not there, or not as it must be.
struct Lacking : std::runtime_error {
  using std::runtime_error::runtime_error;
};
void require(bool condition, const std::string& what);

// The tables, in the order in which they are run. `machine_checks` only looks, in the network namespace of the caller; the others run in
// a network namespace of their own, its loopback up.
std::span<const Check> machine_checks();
std::span<const Check> socket_checks();
std::span<const Check> bpf_checks();
std::span<const Check> kfunc_checks();
std::span<const Check> kernel_checks();

}  // namespace tcpmig::doctor
