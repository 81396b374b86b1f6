// SPDX-License-Identifier: MIT
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "sys/unique_fd.hpp"

namespace tcpmig::bench {

/// A plain server with one thread that notes when accept() returned, and answers whatever it is asked with a fixed body.
class Acceptor {
 public:
  /// `spinning`: it asks accept() again and again instead of sleeping in it, so that no sleeping core has to wake up.
  Acceptor(const std::string& netns, std::uint16_t port, std::size_t reply, bool spinning,
           std::vector<unsigned> processors);
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  /// CLOCK_MONOTONIC ns by the client, "10.0.1.2:4711"; and forgets them.
  std::map<std::string, std::uint64_t> take();

 private:
  void serve();
  void answer(int fd);

  sys::UniqueFd listener_;
  std::string reply_;
  bool spinning_;
  std::vector<unsigned> processors_;
  std::mutex mutex_;
  std::map<std::string, std::uint64_t> accepted_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace tcpmig::bench
