// SPDX-License-Identifier: MIT
// The service's control messages: from a datagram to what it asks for.
#include <arpa/inet.h>
#include <endian.h>
#include <spdlog/spdlog.h>

#include "agent/segments.hpp"
#include "agent/service.hpp"
#include "conn/segment.hpp"

namespace tcpmig::agent {
namespace {

bool names_a_flow(const abi::wire_header& header) {
  const bool ipv4 = sys::Address(header.client).is_ipv4();
  return header.service != 0 && header.client_port != 0 &&
         header.family == (ipv4 ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6);
}

/// To a transfer of our own.
bool is_answer(std::uint8_t type) {
  return type == abi::WIRE_RESUMED || type == abi::WIRE_REFUSED || type == abi::WIRE_ABORTED ||
         type == abi::WIRE_MISSING;
}

}  // namespace

void Service::on_datagram(std::span<const std::byte> datagram, const sys::Endpoint& from) {
  const auto message = opener_.open(datagram);
  if (!message) {
    const bool tag =
        message.error() == control::Reject::kTag || message.error() == control::Reject::kUnknownKey;
    ++(tag ? counters_.bad_tags : counters_.bad_datagrams);
    return;
  }
  const abi::wire_header& header = message->header;
  if (header.type == abi::WIRE_HEARTBEAT) return on_heartbeat(header);
  if (!names_a_flow(header)) {
    ++counters_.bad_datagrams;
    return;
  }
  if (is_answer(header.type)) {  // named by flow and generation; its number is the question's
    if (!departures_.take_answer(flow_of(config_, self_.id, header), *message))
      ++counters_.late_answers;
    return;
  }
  // so does what a refusing server gives back
  if (header.type == abi::WIRE_SEGMENT &&
      departures_.take_handed_back(flow_of(config_, self_.id, header), *message))
    return;
  if (!replays_.accept(ntohs(header.sender), header.lane, be64toh(header.sequence))) {
    ++counters_.replays;
    return;
  }
  const abi::flow_key flow = flow_of(config_, self_.id, header);
  switch (header.type) {
    case abi::WIRE_COMMIT:
    case abi::WIRE_DATA:
      return on_part(flow, *message, from);
    case abi::WIRE_ABORT:
      return on_abort(flow, *message, from);
    case abi::WIRE_SEGMENT:
      return on_segment(flow, *message);
    case abi::WIRE_REVOKED:
      return on_revoked(flow, header);
    default:
      ++counters_.bad_datagrams;  // nothing that is said to an agent
  }
}

void Service::on_part(const abi::flow_key& flow, const control::Incoming& message,
                      const sys::Endpoint& from) {
  const abi::wire_header& header = message.header;
  const bool commit = header.type == abi::WIRE_COMMIT;
  const control::Generation generation = ntohl(header.generation);
  const auto tombstone = tombstones_.find(flow);
  const bool known = tombstone && !control::newer(generation, tombstone->generation);
  // Announced and not yet opened; or a former run that did not get to the end of a transfer of several parts: they are put together
  // once more.
  const bool unfinished = known && tombstone->generation == generation &&
                          (tombstone->state == abi::TOMB_ANNOUNCED ||
                           (tombstone->state == abi::TOMB_OPENING && ntohs(header.parts) > 1 &&
                            !openings_.has(flow) && !handoffs_.has(flow)));
  if (known && !unfinished) {
    if (commit) answer_again(flow, *tombstone, header, from);
    return;
  }
  const bool whole = (header.flags & abi::WIRE_FLAG_WHOLE) != 0;
  if (whole && !handoffs_.has_socket(ntohs(header.target_port))) {
    if (commit) refuse_unopened(flow, header, from, {abi::REASON_NO_HANDOFF, 0});
    return;
  }
  if (!by_program(ntohs(header.target_port)) && !programs_.can_resume()) {
    if (commit) refuse_unopened(flow, header, from, {abi::REASON_NO_KFUNC, 0});
    return;
  }
  if (commit && !known) announce(flow, header);
  auto arrival = assembly_.add(flow, message, from, Clock::now());
  if (arrival && *arrival) return open(std::move(**arrival));
  if (!arrival && arrival.error() == Assembly::Problem::kContradiction) ++counters_.bad_datagrams;
  if (!arrival && arrival.error() == Assembly::Problem::kTooMany && commit)
    refuse_unopened(flow, header, from, {abi::REASON_INCOMPLETE, ENOBUFS});
}

void Service::on_abort(const abi::flow_key& flow, const control::Incoming& message,
                       const sys::Endpoint& from) {
  const control::Generation generation = ntohl(message.header.generation);
  assembly_.drop(flow, generation);
  const auto outcome = tombstones_.forbid(flow, message.header);
  switch (outcome.what) {
    case abi::TOMBSTONE_DONE:
      ++counters_.aborted;
      flows_.settled(flow, generation, Clock::now());
      answers_.aborted(message.header, from);
      return hand_back(flow, message.header, from);
    case abi::TOMBSTONE_OLD:
      return answer_again(flow, outcome.now, message.header, from);
    default:
      return;  // no room to remember it: a promise that cannot be kept is not given
  }
}

/// Captured by a former owner: header and data, its ports and addresses are the flow's.
void Service::on_segment(const abi::flow_key& flow, const control::Incoming& message) {
  const auto tombstone = tombstones_.find(flow);
  const bool current = tombstone && tombstone->generation == ntohl(message.header.generation);
  const bool crafted = (message.header.flags & abi::WIRE_FLAG_CRAFTED) != 0;
  if (current && give_segment(flow, *tombstone, message.payload, crafted)) {
    ++counters_.late_segments;
    return;
  }
  // it may have gone on since
  if (!departures_.send_on(flow, message.payload, crafted)) ++counters_.late_segments_dropped;
}

/// False: there is no connection of this tombstone.
bool Service::give_segment(const abi::flow_key& flow, const abi::tombstone& tombstone,
                           std::span<const std::byte> bytes, bool crafted) {
  // Bytes that were acknowledged may not wait where they could expire: they belong to what is being delivered.
  if (crafted && openings_.append(flow, tombstone.generation, bytes)) return true;
  const auto client = client_of(flow);
  const auto local = local_of(flow, tombstone.target_port);
  const auto child = diag_.find(local, client, true);
  Bytes segment(bytes.begin(), bytes.end());
  if (child && child->tcp && crafted)
    set_acknowledgement(
        segment, tombstone.snd_nxt + static_cast<std::uint32_t>(child->tcp->tcpi_bytes_acked));
  return child &&
         conn::give_packets(client, local, segment, [&](std::span<const std::byte> packet) {
           if (!openings_.has(flow)) return openings_.inject(packet);
           // behind what is still being delivered
           if (!held_.add(flow, {packet.begin(), packet.end()}, Clock::now()))
             ++counters_.hold_full;
         });
}

void Service::on_heartbeat(const abi::wire_header& answer) {
  const TimePoint now = Clock::now();
  const bool first = heartbeat_.boot() == 0;
  if (!heartbeat_.answered(answer, now)) return;
  if (!first)
    spdlog::warn("the switch has lost its table: announcing {} live flows", flows_.live());
  flows_.announce(now);
}

/// The flow has gone on to another owner: the socket here talks to nobody. What its end sends the switch drops. A switch
/// that knows nothing (generation 0) may have lost its table, and every announcement may have been lost: that ends no connection.
void Service::on_revoked(const abi::flow_key& flow, const abi::wire_header& header) {
  const control::Generation current = ntohl(header.generation);
  const auto known = tombstones_.find(flow);
  if (header.sender != 0 || !known || departures_.is_frozen(flow)) return;
  if (current == 0) return flows_.announce(flow);
  const auto socket = diag_.find(local_of(flow, known->target_port), client_of(flow));
  if (socket && tombstones_.is_before(flow, current) && diag_.destroy(*socket)) ++counters_.revoked;
}

}  // namespace tcpmig::agent
