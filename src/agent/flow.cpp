// SPDX-License-Identifier: MIT
#include "agent/flow.hpp"

#include <arpa/inet.h>

#include "shared/switch_maps.h"

namespace tcpmig::agent {

abi::flow_key flow_of(const config::Config& config, config::NodeId self,
                      const abi::wire_header& header) {
  const bool ipv4 = header.family == abi::FAMILY_IPV4;
  const config::ServiceId service = ntohs(header.service);
  abi::flow_key flow{};
  flow.client = header.client;
  flow.vip =
      (ipv4 ? config::vpa4(config, self, service) : config::vpa6(config, self, service)).raw();
  flow.client_port = header.client_port;
  flow.family = header.family;
  return flow;
}

abi::flow_key flow_of(const sys::Endpoint& local, const sys::Endpoint& client) {
  abi::flow_key flow{};
  flow.client = client.address.raw();
  flow.vip = local.address.raw();
  flow.client_port = htons(client.port);
  flow.family = local.address.is_ipv4() ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
  return flow;
}

sys::Endpoint client_of(const abi::flow_key& flow) {
  return {sys::Address(flow.client), ntohs(flow.client_port)};
}

sys::Endpoint local_of(const abi::flow_key& flow, std::uint16_t port) {
  return {sys::Address(flow.vip), port};
}

config::ServiceId service_of(const abi::flow_key& flow) {
  const auto* last = flow.vip.bytes + sizeof flow.vip.bytes - 2;
  const unsigned low = static_cast<unsigned>(last[0]) << 8U | last[1];
  const unsigned mask =
      flow.family == abi::FAMILY_IPV4 ? (1U << abi::VPA4_SERVICE_BITS) - 1 : 0xffffU;
  return static_cast<config::ServiceId>(low & mask);
}

}  // namespace tcpmig::agent
