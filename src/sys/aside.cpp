// SPDX-License-Identifier: MIT
#include "sys/aside.hpp"

#include <atomic>
#include <system_error>
#include <thread>
#include <utility>

namespace tcpmig::sys {
namespace {

/// Nobody waits for the threads, nor could: they end with the process.
std::atomic<std::size_t> threads = 0;

/// False: there is no thread for it, and it is as it was.
bool try_close(UniqueFd& fd) noexcept {
  if (threads.fetch_add(1) < Aside::kMost) try {
      std::thread([number = fd.get()] {
        {
          const UniqueFd closed(number);
        }
        threads.fetch_sub(1);
      }).detach();
      static_cast<void>(fd.release());
      return true;
    } catch (const std::system_error&) {  // no thread to be had
    }
  threads.fetch_sub(1);
  return false;
}

}  // namespace

void Aside::close(UniqueFd fd) {
  if (fd && !try_close(fd)) waiting_.push_back(std::move(fd));
}

void Aside::run() {
  std::erase_if(waiting_, [](UniqueFd& fd) { return try_close(fd); });
}

}  // namespace tcpmig::sys
