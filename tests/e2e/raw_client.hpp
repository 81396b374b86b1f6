// SPDX-License-Identifier: MIT
#pragma once
#include <deque>
#include <functional>
#include <map>

#include "e2e/ip_packet.hpp"
#include "e2e/support.hpp"
#include "sys/tun.hpp"

/// TCP clients made of single packets. No kernel stands behind their addresses: nothing is sent, and
/// nothing sent again, that the test does not say.
namespace tcpmig::e2e {

class RawClient;

/// Where raw clients live: a network behind client1, at the other end of a TUN device.
///
///   10.0.9.0/24, fd00:9::/64 --- TUN "strange" --- client1 (forwards) --- switch1 ...
class RawNetwork {
 public:
  explicit RawNetwork(const TestLab& lab);
  RawNetwork(const RawNetwork&) = delete;
  RawNetwork& operator=(const RawNetwork&) = delete;

  /// An endpoint that nobody has used.
  sys::Endpoint fresh(bool ipv6);
  void send(const Packet& packet);
  /// Gives what comes to whom it is for, until `done` says yes (true) or the time is over.
  bool run(const std::function<bool()>& done, std::chrono::milliseconds limit = 15s);
  /// Packets for endpoints where no client is any more.
  [[nodiscard]] const std::vector<Packet>& strays() const noexcept { return strays_; }

 private:
  friend class RawClient;
  void take_all();
  std::optional<sys::Tun> tun_;
  std::map<sys::Endpoint, RawClient*> clients_;
  std::vector<Packet> strays_;
  std::uint16_t next_port_ = 20'000;
};

/// What a client is like.
struct Shape {
  std::optional<std::uint16_t> mss = 1400;  ///< that it announces
  std::uint16_t segment = 0;  ///< largest that it sends; 0: 1400, or what the service allows
  std::optional<std::uint8_t> wscale = 7;
  bool sack = true;
  bool timestamps = true;
  bool ecn = false;
  bool md5 = false;
  std::optional<std::string> fast_open = {};
  std::string syn_data = {};
  std::uint32_t isn = 1'000'000;
  std::uint32_t window = 60'000;  ///< bytes it lets come; from the SYN on
  std::uint32_t tsval = 5'000'000;
};

class RawClient {
 public:
  /// Sends nothing yet.
  RawClient(RawNetwork& network, const sys::Endpoint& to, const Shape& shape = {});
  RawClient(RawNetwork& network, const sys::Endpoint& local, const sys::Endpoint& to,
            const Shape& shape);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void send_syn();
  /// The three packets. False: no SYN-ACK came.
  bool connect(std::chrono::milliseconds limit = 5s);

  /// The next bytes of the stream, in segments; `flags` on the last one. Heeds no window.
  void send(std::string_view bytes, std::uint8_t flags = kPsh);
  /// The same, heeding the service's window: waits for it. False: it did not open in time.
  bool upload(std::string_view bytes);
  void send_fin() { send({}, kFin); }
  void send_reset();
  /// One segment; its last byte is urgent.
  void send_urgent(std::string_view bytes);
  /// So many of the next bytes have been sent, by transmit().
  void skip(std::size_t bytes) { snd_nxt_ += static_cast<std::uint32_t>(bytes); }
  /// Data of the SYN that was acknowledged is not sent again.
  void take_syn_data() { snd_nxt_ = snd_una_; }
  /// Acknowledges what has come.
  void send_ack();
  /// A segment as given, with acknowledgement, window and timestamps filled in; moves no number.
  void transmit(std::uint32_t seq, std::string_view bytes, std::uint8_t flags = kAck);
  /// The same, damaged on its way.
  void transmit_damaged(std::uint32_t seq, std::string_view bytes);
  /// The same with every field the caller's.
  void transmit(const Segment& segment);

  bool wait(const std::function<bool()>& done, std::chrono::milliseconds limit = 15s);
  bool wait_for_acknowledged(std::chrono::milliseconds limit = 15s);
  /// The next response, by its Content-Length (`with_body` false: the head only). An empty one when
  /// it does not come, or the connection ends before.
  Response receive(bool with_body = true);
  /// All that has come and was not taken by receive(), at the service's FIN or RST.
  bool wait_for_end(std::chrono::milliseconds limit = 15s);
  /// Ends the connection in both directions: FIN, and waits for the service's.
  bool close();
  std::string take_stream() { return std::exchange(stream_, {}); }

  [[nodiscard]] const std::string& stream() const noexcept { return stream_; }
  [[nodiscard]] const std::vector<Segment>& seen() const noexcept { return seen_; }
  [[nodiscard]] std::string seen_text() const;               ///< for INFO()
  [[nodiscard]] std::size_t count(std::uint8_t flag) const;  ///< segments with this flag
  [[nodiscard]] bool reset() const { return count(kRst) != 0; }
  [[nodiscard]] bool fin() const noexcept { return fin_; }
  [[nodiscard]] const Segment& syn_ack() const noexcept { return syn_ack_; }
  [[nodiscard]] sys::Endpoint local() const noexcept { return local_; }
  [[nodiscard]] std::uint32_t snd_nxt() const noexcept { return snd_nxt_; }
  [[nodiscard]] std::uint32_t snd_una() const noexcept { return snd_una_; }
  [[nodiscard]] std::uint32_t rcv_nxt() const noexcept { return rcv_nxt_; }
  /// Bytes that fit the service's window.
  [[nodiscard]] std::uint32_t room() const;
  /// Bytes of the service's stream that came more than once.
  [[nodiscard]] std::uint64_t repeated() const noexcept { return repeated_; }
  [[nodiscard]] std::uint32_t tsval_now() const;
  [[nodiscard]] std::uint32_t ts_recent() const noexcept { return ts_recent_; }

  std::uint32_t window;      ///< of the segments sent from now on, in bytes
  bool acknowledges = true;  ///< at once, what comes in order
  std::uint8_t tos = 0;      ///< of data segments

 private:
  friend class RawNetwork;
  void take(const Segment& segment);
  /// Where data has come already (RFC 9293, 3.10.7.4). The kernel needs it: the child of TCP Fast Open refuses an ACK that echoes its data's timestamp rather
  /// than its SYN-ACK's (net/ipv4/tcp_minisocks.c, tcp_check_req, tsecr_reject).
  void answer_repeated_syn_ack(const Segment& segment);
  void take_data(const Segment& segment);
  [[nodiscard]] Segment next_segment(std::uint32_t seq, std::uint8_t flags) const;

  RawNetwork& network_;
  sys::Endpoint local_, to_;
  Shape shape_;
  bool timestamps_ = false, scaled_ = false;  ///< negotiated
  std::size_t segment_size_ = 536;
  std::uint32_t snd_nxt_, snd_una_, rcv_nxt_ = 0, ts_recent_ = 0, right_edge_ = 0;
  Segment syn_ack_;
  std::vector<Segment> seen_;
  std::string stream_;
  bool fin_ = false;
  std::uint64_t repeated_ = 0;
};

}  // namespace tcpmig::e2e
