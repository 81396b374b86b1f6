// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <string>
#include <vector>

#include "sys/address.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::bench {

/// Very many connections that stay open: silent, or each with one request answered. A process of its own for each client address, since one
/// process may not have so many descriptors.
class Crowd {
 public:
  /// `request` empty: they are connected and say nothing.
  Crowd(sys::Endpoint target, std::string request)
      : target_(target), request_(std::move(request)) {}
  ~Crowd();
  Crowd(const Crowd&) = delete;
  Crowd& operator=(const Crowd&) = delete;

  /// Opens so many more from inside this network namespace. Throws, with the reason, when one fails.
  void grow(const std::string& netns, std::size_t count);
  /// One more request on the first `count` connections of the first process, one after the other; microseconds each.
  [[nodiscard]] std::vector<double> ask_again(std::size_t count);
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  struct Member {
    pid_t pid;
    sys::UniqueFd channel;
  };
  [[noreturn]] void live(sys::UniqueFd channel, const std::string& netns, std::size_t count) const;

  sys::Endpoint target_;
  std::string request_;
  std::vector<Member> members_;
  std::size_t size_ = 0;
};

}  // namespace tcpmig::bench
