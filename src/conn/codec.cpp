// SPDX-License-Identifier: MIT
// The encoded form of a snapshot, version 2: docs/protocol-snapshot.md has its table, in the order
// in which encode() writes. Every snapshot has one form only: what decodes encodes to the same bytes.
#include <algorithm>
#include <array>
#include <concepts>
#include <limits>
#include <stdexcept>

#include <tcpmig/codec.hpp>

#include "sys/address.hpp"

namespace tcpmig {
namespace {

constexpr std::uint32_t kMagic = 0x54435053;  // "TCPS"
constexpr std::uint8_t kVersion = 2;
constexpr std::size_t kHeaderSize = 176;
constexpr std::size_t kNameSize = 16;  // TCP_CA_NAME_MAX, the zero at its end included
constexpr std::uint8_t kMaxScale = 14;

enum Present : std::uint16_t {
  kWindow = 1,
  kScale = 2,
  kTimestamps = 4,
  kTsRecent = 8,
  kMicroseconds = 16,
  kSack = 32,
  kEcn = 64,
  kMapped = 128,
  kSettings = 256,
  kNodelay = 512,
  kCork = 1024,
  kKeepalive = 2048,
  kLinger = 4096,
  kNonblocking = 8192,
  kSendBufferFixed = 16384,
  kReceiveBufferFixed = 32768,
  kAll = 65535,
};

class Writer {
 public:
  explicit Writer(std::size_t size) { bytes_.reserve(size); }
  template <std::unsigned_integral Number>
  void number(Number value) {
    for (int shift = 8 * (static_cast<int>(sizeof(value)) - 1); shift >= 0; shift -= 8)
      bytes_.push_back(static_cast<std::byte>(value >> shift));
  }
  void append(std::span<const std::byte> more) {
    bytes_.insert(bytes_.end(), more.begin(), more.end());
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

/// Straight-line reading: the first error sticks, everything after it reads as zero.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <std::unsigned_integral Number>
  Number number() {
    Number value = 0;
    for (const std::byte byte : bytes(sizeof(value)))
      value = static_cast<Number>(value << 8 | std::to_integer<Number>(byte));
    return value;
  }
  std::span<const std::byte> bytes(std::size_t count) {
    if (count > rest_.size()) fail(DecodeError::kTruncated);
    if (error_) return {};
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  void require(bool condition, DecodeError error) {
    if (!condition) fail(error);
  }
  [[nodiscard]] bool at_end() const { return rest_.empty(); }
  [[nodiscard]] std::optional<DecodeError> error() const { return error_; }

 private:
  void fail(DecodeError error) {
    if (!error_) error_ = error;
  }
  std::span<const std::byte> rest_;
  std::optional<DecodeError> error_;
};

std::uint8_t family_of(const sys::Address& address) {
  return address.is_ipv4() ? abi::FAMILY_IPV4 : abi::FAMILY_IPV6;
}

unsigned flags_of(const SocketSettings& settings) {
  unsigned flags = 0;
  if (settings.nonblocking) flags |= kNonblocking;
  if (settings.send_buffer_fixed) flags |= kSendBufferFixed;
  if (settings.receive_buffer_fixed) flags |= kReceiveBufferFixed;
  if (settings.nodelay) flags |= kNodelay;
  if (settings.cork) flags |= kCork;
  if (settings.keepalive) flags |= kKeepalive;
  if (settings.linger) flags |= kLinger;
  return flags;
}

std::uint16_t present_in(const Snapshot& snapshot) {
  unsigned present = 0;
  if (snapshot.window) present |= kWindow;
  if (snapshot.wscale) present |= kScale;
  if (snapshot.timestamps) {
    present |= kTimestamps;
    if (snapshot.timestamps->ts_recent) present |= kTsRecent;
    if (snapshot.timestamps->microseconds) present |= kMicroseconds;
  }
  if (snapshot.sack) present |= kSack;
  if (snapshot.ecn) present |= kEcn;
  if (snapshot.mapped) present |= kMapped;
  if (snapshot.settings) present |= kSettings | flags_of(*snapshot.settings);
  return static_cast<std::uint16_t>(present);
}

void write_address(Writer& writer, const sys::Address& address) {
  const abi::ip_address raw = address.raw();
  writer.append(std::as_bytes(std::span(raw.bytes)));
}

sys::Address read_address(Reader& reader) {
  abi::ip_address raw{};
  std::ranges::transform(reader.bytes(sizeof(raw.bytes)), raw.bytes,
                         [](std::byte byte) { return std::to_integer<std::uint8_t>(byte); });
  return sys::Address(raw);
}

void write_window(Writer& writer, const RepairWindow& window) {
  for (const std::uint32_t field :
       {window.snd_wl1, window.snd_wnd, window.max_window, window.rcv_wnd, window.rcv_wup})
    writer.number(field);
}

RepairWindow read_window(Reader& reader) {
  RepairWindow window;
  for (std::uint32_t* field :
       {&window.snd_wl1, &window.snd_wnd, &window.max_window, &window.rcv_wnd, &window.rcv_wup})
    *field = reader.number<std::uint32_t>();
  return window;
}

/// A value that is only there when `flag` is in `present`; else its bytes must be zero.
template <typename Value>
std::optional<Value> only_if(Reader& reader, unsigned present, unsigned flag, const Value& value) {
  if ((present & flag) != 0) return value;
  reader.require(value == Value{}, DecodeError::kField);
  return std::nullopt;
}

std::optional<Timestamps> to_timestamps(Reader& reader, unsigned present, std::uint32_t tsval,
                                        std::uint32_t recent) {
  const auto ts_recent = only_if(reader, present, kTsRecent, recent);
  const Timestamps timestamps{
      .tsval_now = tsval, .ts_recent = ts_recent, .microseconds = (present & kMicroseconds) != 0};
  return only_if(reader, present, kTimestamps, timestamps);
}

std::vector<std::byte> read_queue(Reader& reader, std::size_t length) {
  const auto bytes = reader.bytes(length);
  return {bytes.begin(), bytes.end()};
}

void write_settings(Writer& writer, const SocketSettings& settings) {
  writer.number(settings.tos);
  writer.number(settings.hops);
  writer.number(std::uint8_t{0});
  for (const std::uint32_t field :
       {settings.linger.value_or(0), settings.keep_idle, settings.keep_interval,
        settings.keep_count, settings.user_timeout, settings.notsent_lowat, settings.priority,
        settings.mark, settings.send_buffer, settings.receive_buffer})
    writer.number(field);
  std::array<char, kNameSize> name{};
  settings.congestion.copy(name.data(), kNameSize - 1);
  writer.append(std::as_bytes(std::span(name)));
}

/// Zeros after its end, so that a name has one form only.
std::string read_name(Reader& reader) {
  std::string name;
  for (const std::byte byte : reader.bytes(kNameSize)) name += static_cast<char>(byte);
  const std::size_t end = std::min(name.find('\0'), kNameSize);
  reader.require(end < kNameSize && name.find_first_not_of('\0', end) == std::string::npos,
                 DecodeError::kField);
  name.resize(end);
  return name;
}

std::optional<SocketSettings> read_settings(Reader& reader, unsigned present) {
  SocketSettings settings;
  settings.nonblocking = (present & kNonblocking) != 0;
  settings.nodelay = (present & kNodelay) != 0;
  settings.cork = (present & kCork) != 0;
  settings.keepalive = (present & kKeepalive) != 0;
  settings.send_buffer_fixed = (present & kSendBufferFixed) != 0;
  settings.receive_buffer_fixed = (present & kReceiveBufferFixed) != 0;
  settings.tos = reader.number<std::uint8_t>();
  settings.hops = reader.number<std::uint8_t>();
  reader.require(reader.number<std::uint8_t>() == 0, DecodeError::kField);
  const auto linger = reader.number<std::uint32_t>();
  settings.linger = only_if(reader, present, kLinger, linger);
  for (std::uint32_t* field : {&settings.keep_idle, &settings.keep_interval, &settings.keep_count,
                               &settings.user_timeout, &settings.notsent_lowat, &settings.priority,
                               &settings.mark, &settings.send_buffer, &settings.receive_buffer})
    *field = reader.number<std::uint32_t>();
  settings.congestion = read_name(reader);
  return only_if(reader, present, kSettings, settings);
}

TcpState read_state(Reader& reader) {
  const auto state = to_tcp_state(reader.number<std::uint8_t>());
  reader.require(state.has_value(), DecodeError::kField);
  return state.value_or(TcpState::kEstablished);
}

/// The queues, by lengths that have been checked against the limit and against each other.
void read_queues(Reader& reader, Snapshot& snapshot) {
  const auto received = reader.number<std::uint32_t>();
  const auto sent = reader.number<std::uint32_t>();
  const auto unsent = reader.number<std::uint32_t>();
  reader.require(std::max({received, sent, unsent}) <= kMaxQueueBytes, DecodeError::kTooLarge);
  reader.require(sent == snapshot.snd_nxt.since(snapshot.snd_una), DecodeError::kField);
  snapshot.received = read_queue(reader, received);
  snapshot.sent = read_queue(reader, sent);
  snapshot.unsent = read_queue(reader, unsent);
}

bool fits(const std::vector<std::byte>& queue) { return queue.size() <= kMaxQueueBytes; }

bool is_name(const std::string& name) {
  return name.size() < kNameSize && name.find('\0') == std::string::npos;
}

/// The peer has acknowledged our FIN, and so all that came before it.
bool contradicts_state(const Snapshot& snapshot) {
  return snapshot.state == TcpState::kFinWait2 &&
         !(snapshot.sent.empty() && snapshot.unsent.empty());
}

void refuse_what_has_no_form(const Snapshot& snapshot) {
  if (family_of(snapshot.local.address) != family_of(snapshot.peer.address))
    throw std::invalid_argument("encode: the ends are of different families");
  if (snapshot.wscale && (snapshot.wscale->snd > kMaxScale || snapshot.wscale->rcv > kMaxScale))
    throw std::invalid_argument("encode: window scale above 14");
  if (!fits(snapshot.received) || !fits(snapshot.sent) || !fits(snapshot.unsent))
    throw std::invalid_argument("encode: a queue is longer than 64 MB");
  if (snapshot.sent.size() != snapshot.snd_nxt.since(snapshot.snd_una))
    throw std::invalid_argument("encode: sent is not [snd_una, snd_nxt)");
  if (snapshot.mapped && !snapshot.local.address.is_ipv4())
    throw std::invalid_argument("encode: mapped addresses are IPv4 addresses");
  if (snapshot.settings && !is_name(snapshot.settings->congestion))
    throw std::invalid_argument("encode: a congestion control's name has at most 15 characters");
  if (!to_tcp_state(static_cast<std::uint8_t>(snapshot.state)))
    throw std::invalid_argument("encode: a state that cannot be carried");
  if (contradicts_state(snapshot))
    throw std::invalid_argument("encode: in FIN_WAIT2 everything has been acknowledged");
}

}  // namespace

std::string to_string(DecodeError error) {
  switch (error) {
    case DecodeError::kTruncated:
      return "the snapshot ends before it should";
    case DecodeError::kMagic:
      return "not a snapshot";
    case DecodeError::kVersion:
      return "a snapshot of a version that is not known";
    case DecodeError::kField:
      return "a field of the snapshot is out of range";
    case DecodeError::kTooLarge:
      return "a queue of the snapshot is longer than 64 MB";
    case DecodeError::kTrailing:
      return "bytes after the end of the snapshot";
  }
  return "unknown error";
}

std::vector<std::byte> encode(const Snapshot& snapshot) {
  refuse_what_has_no_form(snapshot);
  const WindowScale scale = snapshot.wscale.value_or(WindowScale{});
  const Timestamps timestamps = snapshot.timestamps.value_or(Timestamps{});
  Writer writer(kHeaderSize + snapshot.received.size() + snapshot.sent.size() +
                snapshot.unsent.size());
  writer.number(kMagic);
  writer.number(kVersion);
  writer.number(family_of(snapshot.peer.address));
  writer.number(present_in(snapshot));
  write_address(writer, snapshot.local.address);
  write_address(writer, snapshot.peer.address);
  writer.number(snapshot.local.port);
  writer.number(snapshot.peer.port);
  writer.number(snapshot.rcv_nxt.value);
  writer.number(snapshot.snd_una.value);
  writer.number(snapshot.snd_nxt.value);
  writer.number(snapshot.snd_wnd);
  writer.number(snapshot.mss);
  writer.number(scale.snd);
  writer.number(scale.rcv);
  writer.number(timestamps.tsval_now);
  writer.number(timestamps.ts_recent.value_or(0));
  writer.number(snapshot.srtt_us);
  write_window(writer, snapshot.window.value_or(RepairWindow{}));
  writer.number(static_cast<std::uint8_t>(snapshot.state));
  write_settings(writer, snapshot.settings.value_or(SocketSettings{}));
  writer.number(snapshot.snd_cwnd);
  writer.number(snapshot.snd_ssthresh);
  for (const auto* queue : {&snapshot.received, &snapshot.sent, &snapshot.unsent})
    writer.number(static_cast<std::uint32_t>(queue->size()));
  for (const auto* queue : {&snapshot.received, &snapshot.sent, &snapshot.unsent})
    writer.append(*queue);
  return writer.take();
}

std::expected<Snapshot, DecodeError> decode(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  Snapshot snapshot;
  reader.require(reader.number<std::uint32_t>() == kMagic, DecodeError::kMagic);
  reader.require(reader.number<std::uint8_t>() == kVersion, DecodeError::kVersion);
  const auto family = reader.number<std::uint8_t>();
  const auto present = reader.number<std::uint16_t>();
  static_assert(kAll == std::numeric_limits<decltype(present)>::max());  // each bit has a meaning
  snapshot.local.address = read_address(reader);
  snapshot.peer.address = read_address(reader);
  reader.require(family == family_of(snapshot.local.address), DecodeError::kField);
  reader.require(family == family_of(snapshot.peer.address), DecodeError::kField);
  snapshot.local.port = reader.number<std::uint16_t>();
  snapshot.peer.port = reader.number<std::uint16_t>();
  snapshot.rcv_nxt = {reader.number<std::uint32_t>()};
  snapshot.snd_una = {reader.number<std::uint32_t>()};
  snapshot.snd_nxt = {reader.number<std::uint32_t>()};
  snapshot.snd_wnd = reader.number<std::uint32_t>();
  snapshot.mss = reader.number<std::uint16_t>();
  const auto snd_scale = reader.number<std::uint8_t>();
  const auto rcv_scale = reader.number<std::uint8_t>();
  reader.require(std::max(snd_scale, rcv_scale) <= kMaxScale, DecodeError::kField);
  snapshot.wscale =
      only_if(reader, present, kScale, WindowScale{.snd = snd_scale, .rcv = rcv_scale});
  const auto tsval = reader.number<std::uint32_t>();
  const auto recent = reader.number<std::uint32_t>();
  snapshot.timestamps = to_timestamps(reader, present, tsval, recent);
  snapshot.srtt_us = reader.number<std::uint32_t>();
  snapshot.window = only_if(reader, present, kWindow, read_window(reader));
  snapshot.sack = (present & kSack) != 0;
  snapshot.ecn = (present & kEcn) != 0;
  snapshot.mapped = (present & kMapped) != 0;
  reader.require(!snapshot.mapped || snapshot.local.address.is_ipv4(), DecodeError::kField);
  snapshot.state = read_state(reader);
  snapshot.settings = read_settings(reader, present);
  snapshot.snd_cwnd = reader.number<std::uint32_t>();
  snapshot.snd_ssthresh = reader.number<std::uint32_t>();
  read_queues(reader, snapshot);
  reader.require(!contradicts_state(snapshot), DecodeError::kField);
  reader.require(reader.at_end(), DecodeError::kTrailing);
  if (const auto error = reader.error()) return std::unexpected(*error);
  return snapshot;
}

}  // namespace tcpmig
