// SPDX-License-Identifier: MIT
#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tcpmig::control {

/// Runs things after a grace period of the kernel (conn/grace_period.hpp). One serves all that wait; off the critical path, on a thread of its own.
class GracePeriod {
 public:
  GracePeriod();
  ~GracePeriod() { stop(); }
  GracePeriod(const GracePeriod&) = delete;
  GracePeriod& operator=(const GracePeriod&) = delete;

  /// Thread-safe. `then` runs on the grace thread: it should only post. After stop() it is dropped.
  void after(std::function<void()> then);
  /// Runs what still waits, then ends the thread. Before anything that `then` refers to goes away. Idempotent.
  void stop();

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::function<void()>> waiting_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tcpmig::control
