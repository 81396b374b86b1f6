// SPDX-License-Identifier: MIT
#include "cli/failure.hpp"

#include <cerrno>
#include <system_error>

#include "sys/errors.hpp"

namespace tcpmig::cli {
namespace {

/// What an errno means to whoever started us, after what was attempted.
std::string hint(int error) {
  switch (error) {
    case EPERM:
    case EACCES:
      return " (it takes root, or CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN)";
    case EADDRINUSE:
      return " (another program has this port: `ss -lntup` shows which)";
    case ENOSYS:
    case EOPNOTSUPP:
      return " (this kernel or driver cannot do it)";
    default:
      return "";
  }
}

bool is_missing_right_or_feature(int error) {
  return error == EPERM || error == EACCES || error == ENOSYS || error == EOPNOTSUPP;
}

}  // namespace

Verdict judge(const std::exception& error) {
  const std::string text = error.what();
  if (const auto* failure = dynamic_cast<const Failure*>(&error)) return {failure->code(), text};
  if (const auto* system = dynamic_cast<const std::system_error*>(&error)) {
    const int code = system->code().value();
    return {is_missing_right_or_feature(code) ? kMissing : kFailed, text + hint(code)};
  }
  if (dynamic_cast<const std::invalid_argument*>(&error) != nullptr) return {kUsage, text};
  if (dynamic_cast<const sys::WrongSetup*>(&error) != nullptr) return {kUsage, text};
  if (dynamic_cast<const sys::AlreadyRunning*>(&error) != nullptr) return {kRunning, text};
  if (dynamic_cast<const sys::MissingFeature*>(&error) != nullptr) return {kMissing, text};
  if (dynamic_cast<const sys::NotFound*>(&error) != nullptr) return {kNotFound, text};
  return {kFailed, text};
}

}  // namespace tcpmig::cli
