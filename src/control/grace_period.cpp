// SPDX-License-Identifier: MIT
#include "control/grace_period.hpp"

#include <utility>

#include "conn/grace_period.hpp"

namespace tcpmig::control {

GracePeriod::GracePeriod() : thread_([this] { loop(); }) {}

void GracePeriod::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void GracePeriod::after(std::function<void()> then) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    waiting_.push_back(std::move(then));
  }
  wake_.notify_one();
}

void GracePeriod::loop() {
  for (;;) {
    std::vector<std::function<void()>> batch;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      batch.swap(waiting_);
    }
    if (!conn::wait_for_grace_period()) {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, conn::kInsteadOfGracePeriod, [this] { return stop_; });
    }
    for (const auto& then : batch) then();
  }
}

}  // namespace tcpmig::control
