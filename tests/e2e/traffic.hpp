// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <string>

#include "e2e/support.hpp"

/// Traffic that tests make by hand, and what the switch says of it.
namespace tcpmig::e2e {

/// A download that is held back by its client, so that it lasts as long as the test wants.
class SlowDownload {
 public:
  SlowDownload(const TestLab& lab, const lab::Payload& file, bool ipv6 = false);
  /// The answer has begun: the server, not the dispatcher, is at the other end.
  bool begun();
  bool complete();
  [[nodiscard]] sys::Endpoint local() const { return client_.local(); }

 private:
  lab::Payload file_;
  HttpClient client_;
  bool first_byte_ = false;
};

/// The named counter of the switch moves, by what `act` does, and no other drop counter does.
void check_drop(const TestLab& lab, const std::string& counter, const std::function<void()>& act);

/// A packet as only root can send it: any source, from inside a node. TCP with a right checksum, a
/// reset of what is there at `to`; or UDP with a payload.
void send_forged_reset(const TestLab& lab, const std::string& node, const sys::Endpoint& from,
                       const sys::Endpoint& to);
void send_forged_datagram(const TestLab& lab, const std::string& node, const sys::Endpoint& from,
                          const sys::Endpoint& to, const std::string& payload);

/// Records the control datagrams of one type that a node sends over IPv4, from its making on.
class ControlTap {
 public:
  ControlTap(const TestLab& lab, const std::string& node, std::uint8_t type);
  /// The next frame, with its Ethernet header; waits for it. Empty: none came.
  std::string next(std::chrono::milliseconds limit);
  /// Sends a frame once more, as it was.
  void replay(const std::string& frame) const;

 private:
  std::uint16_t port_;
  std::uint8_t type_;
  sys::UniqueFd fd_;
};

}  // namespace tcpmig::e2e
