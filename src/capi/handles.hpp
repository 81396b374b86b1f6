// SPDX-License-Identifier: MIT
#pragma once
#include <optional>
#include <vector>

#include <tcpmig.h>
#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

/// What the opaque types of tcpmig.h are. A class of C++ behind each, named as C names it.

struct tcpmig_kit {
  explicit tcpmig_kit(const tcpmig::FreezeKit::Options& options) : kit(options) {}
  tcpmig::FreezeKit kit;
};

struct tcpmig_resume_kit {
  tcpmig::ResumeKit kit;
};

struct tcpmig_captures {
  std::vector<tcpmig::CapturedSegment> segments;
};

/// Decoded ones hold their own value; that of a frozen connection shows the connection's.
struct tcpmig_snapshot {
  tcpmig::Snapshot own;
  const tcpmig::Snapshot* shown = &own;
};

struct tcpmig_frozen {
  enum class Phase { kFrozen, kLoose, kEnded };
  const tcpmig_kit* kit = nullptr;
  tcpmig::Scope scope{};
  Phase phase = Phase::kFrozen;
  std::optional<tcpmig::Frozen> frozen;
  tcpmig::UniqueFd loose;  ///< kLoose: a second freeze was refused; thaw() gives it back
  tcpmig_snapshot snapshot;
};
