// SPDX-License-Identifier: MIT
#pragma once
#include <sys/socket.h>

#include <tcpmig/codec.hpp>
#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "catch.hpp"
#include "conn/segment.hpp"
#include "conn_world.hpp"
#include "sys/check.hpp"
#include "sys/tun.hpp"
#include "sys/unique_fd.hpp"

namespace conn_test {

/// Host B, where connections go on.
class HostB {
 public:
  HostB(World& world, tcpmig::FreezeKit& kit) : world_(world), kit_(kit), tun_(tun_in(world.b)) {}
  /// First the socket, then the route, or a packet that comes between would be answered by RST; then what the lock has captured.
  tcpmig::sys::UniqueFd resume(const tcpmig::Frozen& frozen) {
    const tcpmig::Snapshot& snapshot = frozen.snapshot();
    const auto decoded = tcpmig::decode(tcpmig::encode(snapshot));
    REQUIRE(decoded.has_value());
    CHECK(*decoded == snapshot);
    tcpmig::sys::UniqueFd resumed;
    {
      const auto in = world_.b.enter();
      resumed = tcpmig::repair_resume(*decoded);
    }
    world_.route_to(world_.b);
    kit_.consume_captures([&](const tcpmig::CapturedSegment& segment) {
      if (segment.cookie == frozen.cookie())
        tcpmig::conn::give_packets(snapshot.peer, snapshot.local, segment.bytes,
                                   [&](auto packet) { tun_.inject(packet); });
    });
    return resumed;
  }

 private:
  World& world_;
  tcpmig::FreezeKit& kit_;
  tcpmig::sys::Tun tun_;
};

inline std::uint8_t state_of(const tcpmig::sys::UniqueFd& fd) {
  return info_of(fd.get()).tcpi_state;
}

/// The rest of the stream, to its end.
inline Bytes read_to_end(int fd) {
  Bytes all;
  std::byte buffer[65'536];
  for (;;) {
    const ssize_t got = tcpmig::sys::check("recv", ::recv(fd, buffer, sizeof buffer, 0));
    if (got == 0) return all;
    all.insert(all.end(), buffer, buffer + got);
  }
}

/// What is written first leaves at once; what follows it waits for seconds.
inline void pace(const tcpmig::sys::UniqueFd& fd) {
  const unsigned bytes_a_second = 1'000;
  REQUIRE(::setsockopt(fd.get(), SOL_SOCKET, SO_MAX_PACING_RATE, &bytes_a_second,
                       sizeof bytes_a_second) == 0);
}

/// No recv() waits longer.
inline void limit_waiting(int fd) {
  const timeval limit{.tv_sec = 60, .tv_usec = 0};
  REQUIRE(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
}

}  // namespace conn_test
