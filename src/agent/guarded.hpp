// SPDX-License-Identifier: MIT
#pragma once
#include <spdlog/spdlog.h>

#include <exception>
#include <utility>

namespace tcpmig::agent {

/// One item of a batch: what goes wrong with it is logged, and costs the others nothing. False: it went wrong.
template <typename Step>
bool guarded(const char* what, Step&& step) noexcept {
  try {
    std::forward<Step>(step)();
    return true;
  } catch (const std::exception& error) {
    spdlog::error("{}: {}", what, error.what());
    return false;
  }
}

}  // namespace tcpmig::agent
