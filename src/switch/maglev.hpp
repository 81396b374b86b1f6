// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "shared/switch_maps.h"

namespace tcpmig::steering {

/// The lookup table of Maglev (Eisenbud et al., NSDI 2016, section 3.4): every slot names a
/// backend, each backend has nearly the same number of slots, and when one comes or goes few of the
/// others' slots change. It depends on the set of ids alone, so that every start computes the same.
/// `size` is a prime much larger than the number of backends. No backends: all 0.
std::vector<std::uint32_t> maglev_table(std::vector<std::uint32_t> backends,
                                        std::size_t size = abi::MAGLEV_SIZE);

}  // namespace tcpmig::steering
