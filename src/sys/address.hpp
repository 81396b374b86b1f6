// SPDX-License-Identifier: MIT
#pragma once
#include <tcpmig/address.hpp>

#include "shared/base.h"  // abi::ip_address, whole

namespace tcpmig::sys {
using tcpmig::Address;
using tcpmig::Endpoint;
using tcpmig::Prefix;
}  // namespace tcpmig::sys
