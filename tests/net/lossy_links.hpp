// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <memory>

#include "net/conn_world.hpp"

struct lossy_links;

namespace conn_test {

/// All links of a world lose packets, in both directions, until the world ends.
class LossyLinks {
 public:
  LossyLinks(const World& world, std::uint32_t lost_of_1000);
  ~LossyLinks();
  LossyLinks(const LossyLinks&) = delete;
  LossyLinks& operator=(const LossyLinks&) = delete;
  [[nodiscard]] std::uint64_t lost() const;

 private:
  void attach(const Namespace& where) const;
  lossy_links* program_;
};

}  // namespace conn_test
