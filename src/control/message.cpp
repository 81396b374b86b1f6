// SPDX-License-Identifier: MIT
#include "control/message.hpp"

#include <arpa/inet.h>
#include <endian.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <stdexcept>

namespace tcpmig::control {
namespace {

std::span<const std::byte> tagged_part(const abi::wire_header& header) {
  return std::as_bytes(std::span(&header, 1)).first(abi::WIRE_TAGGED);
}

enum TagKind : unsigned { kSwitchTag = 1, kTargetTag = 2 };

/// Which tags a message of `type` by `sender` carries (bpf/shared/wire.h).
unsigned tags_of(std::uint8_t type, std::uint16_t sender) {
  if (sender == 0) return kSwitchTag;
  switch (type) {
    case abi::WIRE_COMMIT:
    case abi::WIRE_DATA:
      return kSwitchTag | kTargetTag;
    case abi::WIRE_GONE:
    case abi::WIRE_RENEW:
    case abi::WIRE_HEARTBEAT:
      return kSwitchTag;
    default:
      return kTargetTag;
  }
}

const abi::siphash_key* find_key(const abi::key_ring& ring, std::uint8_t key_id) {
  const unsigned slot = key_id & 1U;
  return key_id != 0 && ring.key_id[slot] == key_id ? &ring.key[slot] : nullptr;
}

bool fits_a_transfer(const abi::wire_header& header) {
  const bool whole = (header.flags & abi::WIRE_FLAG_WHOLE) != 0;
  const unsigned parts = ntohs(header.parts);
  const unsigned most_parts = whole ? abi::WIRE_WHOLE_PARTS_MAX : abi::WIRE_PARTS_MAX;
  const unsigned most_bytes = whole ? abi::WIRE_WHOLE_MAX : abi::WIRE_SNAPSHOT_MAX;
  return parts >= 1 && parts <= most_parts && ntohs(header.part) < parts &&
         ntohl(header.total_length) <= most_bytes;
}

bool is_plausible(const abi::wire_header& header) {
  const bool transfer = header.type == abi::WIRE_COMMIT || header.type == abi::WIRE_DATA;
  return header.type > 0 && header.type < abi::WIRE_TYPE_MAX && header.lane < abi::MAX_LANES &&
         (header.family == 0 || header.family == abi::FAMILY_IPV4 ||
          header.family == abi::FAMILY_IPV6) &&
         ntohs(header.sender) < abi::MAX_NODES && ntohs(header.target) < abi::MAX_NODES &&
         ntohs(header.service) < abi::MAX_SERVICES &&
         ntohl(header.generation) <= abi::GENERATION_MASK && header.snd_wscale <= 14 &&
         header.rcv_wscale <= 14 && (!transfer || fits_a_transfer(header));
}

/// Who says what to a node (docs/protocol.md). A server that owns a flow may hand it on, so it says all that a source of a transfer
/// says.
bool may_say(abi::node_role role, std::uint16_t sender, std::uint8_t type) {
  const bool node = role == abi::NODE_DISPATCHER || role == abi::NODE_SERVER;
  switch (type) {
    case abi::WIRE_ABORT:
      return node || sender == 0;
    case abi::WIRE_COMMIT:
    case abi::WIRE_DATA:
    case abi::WIRE_SEGMENT:
      return node;
    case abi::WIRE_RESUMED:
    case abi::WIRE_REFUSED:
      return role == abi::NODE_SERVER || sender == 0;
    case abi::WIRE_ABORTED:
    case abi::WIRE_MISSING:
    case abi::WIRE_LOAD:
      return role == abi::NODE_SERVER;
    case abi::WIRE_REVOKED:
    case abi::WIRE_HEARTBEAT:  // the switch's answer
      return sender == 0;
    default:  // GONE, RENEW: for the switch alone
      return false;
  }
}

}  // namespace

Generation first_generation() {
  using namespace std::chrono;
  const auto ms = duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
  return static_cast<Generation>(ms / abi::GENERATION_CLOCK_MS) & abi::GENERATION_MASK;
}

Sealer::Sealer(const Secret& secret, std::uint16_t node, std::uint8_t lane)
    : switch_keys_(secret.switch_keys(node)),
      pair_keys_(abi::MAX_NODES),
      key_id_(secret.current_id()),
      node_(node),
      lane_(lane) {
  using namespace std::chrono;
  // Above everything a former run can have numbered: none sends a message a nanosecond.
  const auto now = duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
  sequence_ = static_cast<std::uint64_t>(now);
  for (std::uint16_t target = 1; target < abi::MAX_NODES; ++target)
    pair_keys_[target] = node == 0 ? secret.switch_keys(target) : secret.pair_keys(node, target);
}

void Sealer::seal(Outgoing& message) {
  abi::wire_header& header = message.header;
  header.magic = htonl(abi::WIRE_MAGIC);
  const bool whole = (header.flags & abi::WIRE_FLAG_WHOLE) != 0;
  header.version = whole ? abi::WIRE_VERSION_WHOLE : abi::WIRE_VERSION;
  header.key_id = key_id_;
  header.sender = htons(node_);
  header.lane = lane_;
  // An answer repeats the number of what it answers; everything else gets the next one.
  if (header.sequence == 0) header.sequence = htobe64(++sequence_);
  header.payload_length = htonl(static_cast<std::uint32_t>(message.payload.size()));
  header.switch_tag = 0;
  header.target_tag = 0;
  const unsigned tags = tags_of(header.type, node_);
  const std::uint16_t target = ntohs(header.target);
  const abi::key_ring& of_switch = node_ == 0 ? pair_keys_.at(target) : switch_keys_;
  if ((tags & kSwitchTag) != 0)
    header.switch_tag = siphash(of_switch.key[key_id_ & 1U], tagged_part(header));
  if ((tags & kTargetTag) != 0 && target < abi::MAX_NODES)
    header.target_tag =
        siphash(pair_keys_[target].key[key_id_ & 1U], tagged_part(header), message.payload);
}

std::string to_string(Reject reject) {
  switch (reject) {
    case Reject::kTruncated:
      return "shorter than its header";
    case Reject::kMagic:
      return "not a tcpmig message";
    case Reject::kVersion:
      return "of another protocol version";
    case Reject::kLength:
      return "its length is not what its header says";
    case Reject::kField:
      return "a field is out of range";
    case Reject::kNotForUs:
      return "for another node";
    case Reject::kUnknownKey:
      return "its key is not one of the two valid ones";
    case Reject::kTag:
      return "its tag is wrong";
    case Reject::kSender:
      return "its sender does not say such a thing";
  }
  return "unknown";
}

Opener::Opener(const Secret& secret, const config::Config& config, std::uint16_t node)
    : node_(node), peers_(abi::MAX_NODES) {
  peers_[0].keys = secret.switch_keys(node);
  for (const config::Node& peer : config.nodes) {
    if (peer.id == node) continue;
    const bool dispatcher = peer.role == config::Role::kDispatcher;
    peers_.at(peer.id) = {secret.pair_keys(peer.id, node),
                          dispatcher ? abi::NODE_DISPATCHER : abi::NODE_SERVER};
  }
}

std::expected<Incoming, Reject> Opener::open(std::span<const std::byte> datagram) const {
  Incoming incoming;
  if (datagram.size() < sizeof incoming.header) return std::unexpected(Reject::kTruncated);
  std::memcpy(&incoming.header, datagram.data(), sizeof incoming.header);
  const abi::wire_header& header = incoming.header;
  if (ntohl(header.magic) != abi::WIRE_MAGIC) return std::unexpected(Reject::kMagic);
  if (abi::wire_form_is_known(&header) == 0) return std::unexpected(Reject::kVersion);
  incoming.payload = datagram.subspan(sizeof header);
  const std::uint16_t sender = ntohs(header.sender);
  // What the switch bounces may have its payload cut off.
  if (ntohl(header.payload_length) != incoming.payload.size() && sender != 0)
    return std::unexpected(Reject::kLength);
  if (!is_plausible(header)) return std::unexpected(Reject::kField);
  if (ntohs(header.target) != node_) return std::unexpected(Reject::kNotForUs);
  const Peer& peer = peers_[sender];
  const abi::siphash_key* key = find_key(peer.keys, header.key_id);
  if (key == nullptr) return std::unexpected(Reject::kUnknownKey);
  const bool fits = sender == 0
                        ? siphash(*key, tagged_part(header)) == header.switch_tag
                        : siphash(*key, tagged_part(header), incoming.payload) == header.target_tag;
  if (!fits) return std::unexpected(Reject::kTag);
  if (!may_say(peer.role, sender, header.type)) return std::unexpected(Reject::kSender);
  return incoming;
}

std::expected<Snapshot, std::string> to_snapshot(const abi::wire_header& commit,
                                                 std::vector<std::byte> received,
                                                 const sys::Endpoint& local) {
  if (received.size() != ntohl(commit.total_length))
    return std::unexpected("the parts do not add up to the announced length");
  Snapshot snapshot;
  snapshot.local = local;
  snapshot.peer = {sys::Address(commit.client), ntohs(commit.client_port)};
  snapshot.rcv_nxt = {ntohl(commit.rcv_nxt)};
  if ((commit.flags & abi::WIRE_FLAG_CLIENT_FIN) != 0) snapshot.state = TcpState::kCloseWait;
  snapshot.snd_nxt = {ntohl(commit.snd_nxt)};
  snapshot.snd_una = snapshot.snd_nxt;
  snapshot.received = std::move(received);
  snapshot.snd_wnd = ntohl(commit.snd_wnd);
  snapshot.mss = ntohs(commit.mss);
  if ((commit.options & abi::WIRE_OPT_WSCALE) != 0)
    snapshot.wscale = WindowScale{commit.snd_wscale, commit.rcv_wscale};
  if ((commit.options & abi::WIRE_OPT_TIMESTAMPS) != 0)
    snapshot.timestamps = Timestamps{ntohl(commit.tsval_now), ntohl(commit.ts_recent),
                                     (commit.options & abi::WIRE_OPT_USEC_TS) != 0};
  snapshot.sack = (commit.options & abi::WIRE_OPT_SACK) != 0;
  snapshot.ecn = (commit.options & abi::WIRE_OPT_ECN) != 0;
  snapshot.srtt_us = ntohl(commit.srtt_us);
  return snapshot;
}

std::string reason_text(std::uint8_t reason) {
  switch (reason) {
#define X(name, value, text) \
  case abi::name:            \
    return text;
    WIRE_REASONS(X)
#undef X
    default:
      return "unknown reason " + std::to_string(reason);
  }
}

}  // namespace tcpmig::control
