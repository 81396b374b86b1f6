// SPDX-License-Identifier: MIT
#include "e2e/raw_client.hpp"

#include <poll.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>

#include "sys/check.hpp"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"

namespace tcpmig::e2e {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr const char* kNetworks[] = {"10.0.9.0/24", "fd00:9::/64"};

std::int32_t ahead(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a - b); }

void write_setting(const std::string& file, const std::string& value) {
  std::ofstream output(file);
  if (!(output << value << std::flush)) throw std::runtime_error("cannot write " + file);
}

}  // namespace

RawNetwork::RawNetwork(const TestLab& lab) {
  {
    const sys::EnterNetns inside(lab.netns("client1"));
    tun_.emplace("strange");
    write_setting("/proc/sys/net/ipv4/ip_forward", "1");
    write_setting("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    sys::Netlink netlink;
    for (const char* network : kNetworks)
      netlink.add_route({.destination = sys::Prefix::parse(network).value(),
                         .gateway = {},
                         .oif = tun_->ifindex()});
  }
  const sys::EnterNetns inside(lab.netns("switch1"));
  sys::Netlink netlink;
  for (std::size_t i = 0; i < std::size(kNetworks); ++i)
    netlink.add_route({.destination = sys::Prefix::parse(kNetworks[i]).value(),
                       .gateway = lab->node("client1").addresses.at(i)});
}

sys::Endpoint RawNetwork::fresh(bool ipv6) {
  return {sys::Address::parse(ipv6 ? "fd00:9::2" : "10.0.9.2").value(), next_port_++};
}

void RawNetwork::send(const Packet& packet) {
  const std::string bytes = to_bytes(packet);
  if (!tun_->inject(std::as_bytes(std::span(bytes))))
    throw std::runtime_error("the TUN does not take a packet");
}

void RawNetwork::take_all() {
  char bytes[65'536];
  for (;;) {
    const ssize_t got = ::read(tun_->fd(), bytes, sizeof bytes);
    if (got <= 0) return;
    const auto packet = parse({bytes, static_cast<std::size_t>(got)});
    if (!packet) continue;
    const auto client = clients_.find(packet->to);
    if (client != clients_.end())
      client->second->take(packet->segment);
    else
      strays_.push_back(*packet);
  }
}

bool RawNetwork::run(const std::function<bool()>& done, milliseconds limit) {
  const auto deadline = steady_clock::now() + limit;
  pollfd readable{tun_->fd(), POLLIN, 0};
  for (;;) {
    take_all();
    if (done()) return true;
    if (steady_clock::now() >= deadline) return false;
    ::poll(&readable, 1, 5);
  }
}

RawClient::RawClient(RawNetwork& network, const sys::Endpoint& to, const Shape& shape)
    : RawClient(network, network.fresh(to.address.is_ipv6()), to, shape) {}

RawClient::RawClient(RawNetwork& network, const sys::Endpoint& local, const sys::Endpoint& to,
                     const Shape& shape)
    : window(shape.window),
      network_(network),
      local_(local),
      to_(to),
      shape_(shape),
      snd_nxt_(shape.isn),
      snd_una_(shape.isn) {
  if (!network_.clients_.emplace(local_, this).second)
    throw std::logic_error("two raw clients at " + local_.str());
}

RawClient::~RawClient() { network_.clients_.erase(local_); }

std::uint32_t RawClient::tsval_now() const {
  const auto now = std::chrono::duration_cast<milliseconds>(steady_clock::now().time_since_epoch());
  static const auto first = now;  // so that a test can choose where the clock begins
  return shape_.tsval + static_cast<std::uint32_t>((now - first).count());
}

Segment RawClient::next_segment(std::uint32_t seq, std::uint8_t flags) const {
  Segment segment;
  segment.flags = flags;
  segment.seq = seq;
  segment.ack = (flags & kAck) != 0 ? rcv_nxt_ : 0;
  const unsigned shift = scaled_ ? *shape_.wscale : 0;
  segment.window = static_cast<std::uint16_t>(std::min<std::uint32_t>(window >> shift, 0xffff));
  if (timestamps_) segment.timestamps = {tsval_now(), ts_recent_};
  return segment;
}

void RawClient::transmit(const Segment& segment) { network_.send({local_, to_, segment}); }

void RawClient::transmit(std::uint32_t seq, std::string_view bytes, std::uint8_t flags) {
  Segment segment = next_segment(seq, flags);
  segment.payload = bytes;
  if (!bytes.empty()) segment.tos = tos;
  transmit(segment);
}

void RawClient::transmit_damaged(std::uint32_t seq, std::string_view bytes) {
  Segment segment = next_segment(seq, kAck | kPsh);
  segment.payload = bytes;
  segment.damaged = true;
  transmit(segment);
}

void RawClient::send_syn() {
  Segment syn = next_segment(shape_.isn, shape_.ecn ? kSyn | kEce | kCwr : kSyn);
  syn.mss = shape_.mss;
  syn.wscale = shape_.wscale;
  syn.sack_permitted = shape_.sack;
  if (shape_.timestamps) syn.timestamps = {tsval_now(), 0};
  syn.md5 = shape_.md5;
  syn.fast_open = shape_.fast_open;
  syn.payload = shape_.syn_data;
  snd_nxt_ = shape_.isn + 1;
  transmit(syn);
}

bool RawClient::connect(milliseconds limit) {
  send_syn();
  if (!wait([&] { return syn_ack_.has(kSyn) || reset(); }, limit) || reset()) return false;
  send_ack();
  return true;
}

void RawClient::send(std::string_view bytes, std::uint8_t flags) {
  do {
    const std::string_view piece = bytes.substr(0, segment_size_);
    bytes.remove_prefix(piece.size());
    transmit(snd_nxt_, piece, bytes.empty() ? flags | kAck : kAck);
    snd_nxt_ += static_cast<std::uint32_t>(piece.size());
  } while (!bytes.empty());
  if ((flags & kFin) != 0) ++snd_nxt_;
}

std::uint32_t RawClient::room() const {
  const std::int32_t left = ahead(right_edge_, snd_nxt_);
  return left > 0 ? static_cast<std::uint32_t>(left) : 0;
}

bool RawClient::upload(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto enough = std::min(bytes.size(), segment_size_);
    if (!wait([&] { return room() >= enough || reset(); }) || reset()) return false;
    const std::string_view piece = bytes.substr(0, enough);
    bytes.remove_prefix(piece.size());
    send(piece, bytes.empty() ? kPsh : 0);
  }
  return true;
}

void RawClient::send_urgent(std::string_view bytes) {
  Segment segment = next_segment(snd_nxt_, kAck | kPsh | kUrg);
  segment.payload = bytes;
  segment.urgent = static_cast<std::uint16_t>(bytes.size());
  transmit(segment);
  skip(bytes.size());
}

void RawClient::send_reset() { transmit(snd_nxt_, {}, kRst | kAck); }

void RawClient::send_ack() { transmit(snd_nxt_, {}, kAck); }

bool RawClient::wait(const std::function<bool()>& done, milliseconds limit) {
  return network_.run(done, limit);
}

bool RawClient::wait_for_acknowledged(milliseconds limit) {
  return wait([&] { return snd_una_ == snd_nxt_ || reset(); }, limit) && snd_una_ == snd_nxt_;
}

bool RawClient::wait_for_end(milliseconds limit) {
  return wait([&] { return fin_ || reset(); }, limit);
}

bool RawClient::close() {
  send_fin();
  return wait([&] { return (fin_ && snd_una_ == snd_nxt_) || reset(); }) && !reset();
}

std::string RawClient::seen_text() const {
  std::string text = local_.str() + " has seen:\n";
  for (const Segment& segment : seen_) text += "  " + segment.str() + "\n";
  return text;
}

std::size_t RawClient::count(std::uint8_t flag) const {
  return static_cast<std::size_t>(std::count_if(
      seen_.begin(), seen_.end(), [flag](const Segment& segment) { return segment.has(flag); }));
}

Response RawClient::receive(bool with_body) {
  const auto have = [&](std::size_t bytes) { return stream_.size() >= bytes; };
  const auto head_end = [&] { return stream_.find("\r\n\r\n"); };
  if (!wait([&] { return head_end() != std::string::npos || fin_ || reset(); }) ||
      head_end() == std::string::npos)
    return {};
  Response response = lab::parse_response_head(stream_.substr(0, head_end() + 4));
  stream_.erase(0, head_end() + 4);
  const auto length = response.headers.find("content-length");
  response.complete = true;
  if (!with_body) return response;
  const std::size_t size =
      length == response.headers.end() ? SIZE_MAX : std::stoull(length->second);
  wait([&] { return have(size) || fin_ || reset(); });
  response.complete = have(size) || (fin_ && length == response.headers.end());
  response.body = stream_.substr(0, size);
  stream_.erase(0, response.body.size());
  return response;
}

void RawClient::take(const Segment& segment) {
  seen_.push_back(segment);
  if (segment.has(kRst)) return;
  if (segment.has(kSyn)) {
    const bool first = !syn_ack_.has(kSyn);
    syn_ack_ = segment;
    if (!first) return answer_repeated_syn_ack(segment);
    rcv_nxt_ = segment.seq + 1;
    timestamps_ = shape_.timestamps && segment.timestamps;
    scaled_ = shape_.wscale && segment.wscale;
    segment_size_ = shape_.segment != 0 ? shape_.segment
                                        : std::min<std::size_t>(1380, segment.mss.value_or(536));
    snd_una_ = segment.ack;
    right_edge_ = segment.ack + segment.window;  // that of a SYN is never scaled
    if (segment.timestamps) ts_recent_ = segment.timestamps->first;
    return;
  }
  if (segment.has(kAck)) {
    const unsigned shift = scaled_ ? syn_ack_.wscale.value_or(0) : 0;
    const std::uint32_t edge = segment.ack + (std::uint32_t{segment.window} << shift);
    if (ahead(segment.ack, snd_una_) > 0) snd_una_ = segment.ack;
    if (ahead(edge, right_edge_) > 0) right_edge_ = edge;
  }
  if (segment.length() > 0) take_data(segment);
}

void RawClient::answer_repeated_syn_ack(const Segment& segment) {
  if (!acknowledges || ahead(rcv_nxt_, segment.seq) <= 1) return;
  if (segment.timestamps) ts_recent_ = segment.timestamps->first;
  send_ack();
}

void RawClient::take_data(const Segment& segment) {
  const std::int32_t known = ahead(rcv_nxt_, segment.seq);
  const auto size = static_cast<std::int32_t>(segment.length());
  if (known >= 0 && known < size) {
    if (segment.timestamps) ts_recent_ = segment.timestamps->first;
    stream_.append(segment.payload, static_cast<std::size_t>(known));
    rcv_nxt_ = segment.seq + segment.length();
    fin_ = fin_ || segment.has(kFin);
  }
  if (known > 0) repeated_ += static_cast<std::uint64_t>(std::min(known, size));
  if (acknowledges) send_ack();
}

}  // namespace tcpmig::e2e
