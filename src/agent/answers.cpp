// SPDX-License-Identifier: MIT
#include "agent/answers.hpp"

#include <arpa/inet.h>
#include <endian.h>

#include <algorithm>
#include <limits>

namespace tcpmig::agent {
namespace {

/// The switch asks whether the connection lives (ABORT): what there is to say to it is said in its own words.
bool asked_by_switch(const abi::wire_header& question) { return question.sender == 0; }

/// The question's number and flow, and nothing else of it.
abi::wire_header answer_to(const abi::wire_header& question, std::uint8_t type) {
  abi::wire_header header{};
  header.type = type;
  header.sequence = question.sequence;
  header.target = question.sender;
  header.family = question.family;
  header.service = question.service;
  header.generation = question.generation;
  header.client = question.client;
  header.client_port = question.client_port;
  header.target_port = question.target_port;
  header.parts = htons(1);
  return header;
}

std::uint32_t saturated(std::uint64_t value) {
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(value, std::numeric_limits<std::uint32_t>::max()));
}

}  // namespace

void Answers::resumed(const abi::wire_header& question, const sys::Endpoint& to,
                      const abi::wire_resumed& stamps) {
  if (asked_by_switch(question)) return tell_switch(abi::WIRE_RENEW, question);
  abi::wire_header header = answer_to(question, abi::WIRE_RESUMED);
  header.detail = htonl(saturated(be64toh(stamps.opened_ns) - be64toh(stamps.received_ns)));
  port_.send({header, std::as_bytes(std::span(&stamps, 1))}, to);
}

void Answers::refused(const abi::wire_header& question, const sys::Endpoint& to,
                      abi::wire_reason reason, std::uint32_t detail,
                      std::uint32_t current_generation) {
  abi::wire_header header = answer_to(question, abi::WIRE_REFUSED);
  header.reason = static_cast<std::uint8_t>(reason);
  header.detail = htonl(detail);
  header.current_generation = htonl(current_generation);
  port_.send({header, {}}, to);
  ++counters_.refused;
}

void Answers::aborted(const abi::wire_header& question, const sys::Endpoint& to) {
  if (asked_by_switch(question)) return tell_switch(abi::WIRE_GONE, question);
  port_.send({answer_to(question, abi::WIRE_ABORTED), {}}, to);
}

void Answers::handed_back(const abi::wire_header& question, const sys::Endpoint& to,
                          std::span<const std::byte> segment) {
  port_.send({answer_to(question, abi::WIRE_SEGMENT), segment}, to);
}

void Answers::missing(const abi::wire_header& question, const sys::Endpoint& to,
                      std::span<const std::uint16_t> parts) {
  std::vector<std::uint16_t> numbers;
  for (const std::uint16_t part : parts) numbers.push_back(htons(part));
  port_.send({answer_to(question, abi::WIRE_MISSING), std::as_bytes(std::span(numbers))}, to);
}

void Answers::tell_switch(std::uint8_t type, const abi::flow_key& flow, std::uint32_t generation,
                          std::uint16_t port) {
  abi::wire_header header{};
  header.type = type;
  header.family = flow.family;
  header.service = htons(service_of(flow));
  header.generation = htonl(generation);
  header.client = flow.client;
  header.client_port = flow.client_port;
  header.target_port = htons(port);
  header.parts = htons(1);
  port_.send({header, {}}, network_.switch_for(client_of(flow).address));
}

void Answers::tell_switch(std::uint8_t type, const abi::wire_header& question) {
  abi::wire_header header{};
  header.type = type;
  header.family = question.family;
  header.service = question.service;
  header.generation = question.generation;
  header.client = question.client;
  header.client_port = question.client_port;
  header.target_port = question.target_port;
  header.parts = htons(1);
  port_.send({header, {}}, network_.switch_for(sys::Address(question.client)));
}

void Answers::gone(const abi::flow_key& flow, std::uint32_t generation) {
  tell_switch(abi::WIRE_GONE, flow, generation);
  ++counters_.gone;
}

void Answers::renew(const abi::flow_key& flow, std::uint32_t generation, std::uint16_t port) {
  tell_switch(abi::WIRE_RENEW, flow, generation, port);
  ++counters_.renewed;
}

void Answers::heartbeat(const control::Heartbeat& heartbeat) {
  port_.send(heartbeat.message(false), heartbeat.to());
}

void Answers::load(std::uint32_t live) {
  for (const config::Node* dispatcher : config_.with_role(config::Role::kDispatcher)) {
    const bool ipv4 = self_.address4.is_set() && dispatcher->address4.is_set();
    const sys::Address& address = ipv4 ? dispatcher->address4 : dispatcher->address6;
    if (!address.is_set()) continue;
    abi::wire_header header{};
    header.type = abi::WIRE_LOAD;
    header.target = htons(dispatcher->id);
    header.detail = htonl(live);
    header.parts = htons(1);
    port_.send({header, {}}, {address, config_.control_port});
  }
}

}  // namespace tcpmig::agent
