// SPDX-License-Identifier: MIT
#include "control/heartbeat.hpp"

#include <arpa/inet.h>
#include <endian.h>
#include <sys/random.h>

#include "sys/check.hpp"

namespace tcpmig::control {
namespace {

std::uint32_t random_instance() {
  std::uint32_t number = 0;
  while (number == 0) sys::check("getrandom", ::getrandom(&number, sizeof number, 0));
  return number;
}

}  // namespace

Heartbeat::Heartbeat(const NodeNetwork& network)
    : to_(network.switch_for(network.switch4().is_set() ? network.switch4() : network.switch6())),
      instance_(random_instance()) {}

Outgoing Heartbeat::message(bool draining) const {
  Outgoing message;
  message.header.type = abi::WIRE_HEARTBEAT;
  message.header.family = to_.address.is_ipv4() ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
  message.header.flags = draining ? abi::WIRE_FLAG_DRAINING : 0;
  message.header.parts = htons(1);
  message.header.detail = htonl(instance_);
  return message;
}

sys::Endpoint Heartbeat::to() const { return to_; }

bool Heartbeat::answered(const abi::wire_header& answer,
                         std::chrono::steady_clock::time_point now) {
  const std::uint64_t number = be64toh(answer.sequence);  // of our own heartbeat
  if (answer.sender != 0 || number <= last_number_) return false;
  last_number_ = number;
  last_ = now;
  const std::uint32_t before = boot_;
  boot_ = ntohl(answer.detail);
  return before != boot_;
}

bool Heartbeat::heard(std::chrono::steady_clock::time_point now) const {
  return boot_ != 0 && now - last_ < std::chrono::seconds(1);
}

}  // namespace tcpmig::control
