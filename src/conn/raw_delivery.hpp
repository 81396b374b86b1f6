// SPDX-License-Identifier: MIT
#pragma once
#include <tcpmig/resume.hpp>

#include "sys/address.hpp"

namespace tcpmig::conn {

/// Gives packets for a local address to this kernel by a raw socket: they leave by the loopback device and come back as received, whatever
/// their source (the route that they left by is kept: no reverse path filter, no check for martians). CAP_NET_RAW.
Deliver raw_delivery(const sys::Endpoint& local);

}  // namespace tcpmig::conn
