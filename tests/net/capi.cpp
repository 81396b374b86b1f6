// SPDX-License-Identifier: MIT
// The C API (tcpmig.h) on live connections: what it gives back, and to whom, when something is refused.
#include <fcntl.h>
#include <linux/bpf.h>  // the TCP states
#include <linux/capability.h>
#include <poll.h>
#include <sys/syscall.h>
#include <tcpmig.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <thread>

#include <tcpmig/snapshot.hpp>

#include "catch.hpp"
#include "conn_world.hpp"
#include "sys/address.hpp"
#include "sys/check.hpp"

using namespace conn_test;
using tcpmig::sys::UniqueFd;

namespace {

template <auto function>
struct Free {
  template <typename Handle>
  void operator()(Handle* handle) const {
    function(handle);
  }
};
using Kit = std::unique_ptr<tcpmig_kit, Free<tcpmig_kit_free>>;
using FrozenHandle = std::unique_ptr<tcpmig_frozen, Free<tcpmig_frozen_free>>;
using SnapshotHandle = std::unique_ptr<tcpmig_snapshot, Free<tcpmig_snapshot_free>>;
using Captures = std::unique_ptr<tcpmig_captures, Free<tcpmig_captures_free>>;
using Memory = std::unique_ptr<void, Free<tcpmig_free>>;

Kit make_kit() {
  tcpmig_kit* kit = nullptr;
  REQUIRE(tcpmig_kit_new(nullptr, 0, &kit) == 0);
  return Kit(kit);
}

Captures make_captures() {
  tcpmig_captures* captures = nullptr;
  REQUIRE(tcpmig_captures_new(&captures) == 0);
  return Captures(captures);
}

/// The descriptor has gone to what is returned.
FrozenHandle freeze(const Kit& kit, UniqueFd& fd, int scope, const Bytes& consumed = {}) {
  tcpmig_frozen* frozen = nullptr;
  void* unread = nullptr;
  std::size_t size = 0;
  const int result = tcpmig_freeze(kit.get(), fd.get(), scope, consumed.data(), consumed.size(),
                                   &unread, &size, &frozen);
  INFO(tcpmig_last_error());
  REQUIRE(result == 0);
  CHECK(unread == nullptr);
  static_cast<void>(fd.release());
  return FrozenHandle(frozen);
}

Bytes queue(const tcpmig_snapshot* snapshot, int which) {
  const void* bytes = nullptr;
  std::size_t size = 0;
  REQUIRE(tcpmig_snapshot_queue(snapshot, which, &bytes, &size) == 0);
  const auto* first = static_cast<const std::byte*>(bytes);
  return {first, first + size};
}

SnapshotHandle copy_by_wire(const FrozenHandle& frozen) {
  const tcpmig_snapshot* snapshot = tcpmig_frozen_snapshot(frozen.get());
  void* bytes = nullptr;
  std::size_t size = 0;
  REQUIRE(tcpmig_snapshot_encode_new(snapshot, &bytes, &size) == 0);
  const Memory owned(bytes);
  Bytes mine(size);
  CHECK(tcpmig_snapshot_encode(snapshot, mine.data(), size) == static_cast<ssize_t>(size));
  CHECK(std::memcmp(mine.data(), bytes, size) == 0);
  tcpmig_snapshot* decoded = nullptr;
  REQUIRE(tcpmig_snapshot_decode(bytes, size, &decoded) == 0);
  return SnapshotHandle(decoded);
}

UniqueFd resume_at_b(World& world, const tcpmig_snapshot* snapshot) {
  world.route_to(world.b);
  const auto in = world.b.enter();
  const int fd = tcpmig_resume(snapshot, nullptr, 0, nullptr, nullptr);
  INFO(tcpmig_last_error());
  REQUIRE(fd >= 0);
  return UniqueFd(fd);
}

using ResumeKit = std::unique_ptr<tcpmig_resume_kit, Free<tcpmig_resume_kit_free>>;

/// As if a softirq had been past the lock when it came.
void let_through(const FrozenHandle& frozen) {
  const int fd = tcpmig_frozen_fd(frozen.get()), unused = 0;
  REQUIRE(::setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused) == 0);
}

}  // namespace

TEST_CASE("capi: a connection moves, in both scopes, with what its accessors say") {
  if (cannot_run_here()) return;
  World world;
  const Kit kit = make_kit();
  REQUIRE((tcpmig_kit_features(kit.get()) & TCPMIG_CAN_FREEZE) != 0);
  for (const Family family : {Family::kIpv4, Family::kIpv6, Family::kMapped})
    for (const int scope : {TCPMIG_REQUEST, TCPMIG_WHOLE}) {
      CAPTURE(static_cast<int>(family), scope);
      world.route_to(world.a);
      Pair pair = connect_pair(world, world.a, family);
      REQUIRE(talk(pair.client.get(), pair.server.get(), 3'000));
      send_all(pair.client.get(), bytes_of("and this"));
      wait_until("data", [&] { return bytes_waiting(pair.server.get()) == 8; });
      wait_until("acknowledged", [&] { return info_of(pair.server.get()).tcpi_unacked == 0; });
      sockaddr_storage peer{};
      socklen_t length = sizeof peer;
      REQUIRE(::getsockname(pair.client.get(), reinterpret_cast<sockaddr*>(&peer), &length) == 0);

      const FrozenHandle frozen = freeze(kit, pair.server, scope, bytes_of("read "));
      REQUIRE(tcpmig_settle(frozen.get()) == 0);
      const SnapshotHandle snapshot = copy_by_wire(frozen);
      CHECK(queue(snapshot.get(), TCPMIG_RECEIVED) == bytes_of("read and this"));
      CHECK(queue(snapshot.get(), TCPMIG_SENT).empty());
      sockaddr_storage said{};
      length = sizeof said;
      REQUIRE(tcpmig_snapshot_peer(snapshot.get(), reinterpret_cast<sockaddr*>(&said), &length) ==
              0);
      CHECK(tcpmig::Endpoint::from_sockaddr(said) == tcpmig::Endpoint::from_sockaddr(peer));
      length = sizeof said;
      REQUIRE(tcpmig_snapshot_local(snapshot.get(), reinterpret_cast<sockaddr*>(&said), &length) ==
              0);
      CHECK(tcpmig::Endpoint::from_sockaddr(said) == service(family));
      tcpmig_info info{};
      REQUIRE(tcpmig_snapshot_info(snapshot.get(), &info, sizeof info) == 0);
      CHECK(info.state == TCPMIG_ESTABLISHED);
      CHECK(info.snd_una == info.snd_nxt);
      CHECK((info.options & (TCPMIG_WSCALE | TCPMIG_TIMESTAMPS | TCPMIG_SACK)) ==
            (TCPMIG_WSCALE | TCPMIG_TIMESTAMPS | TCPMIG_SACK));
      CHECK(((info.options & TCPMIG_MAPPED) != 0) == (family == Family::kMapped));

      const UniqueFd resumed = resume_at_b(world, snapshot.get());
      CHECK(tcpmig_commit(frozen.get()) == 0);
      CHECK(tcpmig_commit(frozen.get()) == -EALREADY);
      CHECK(tcpmig_thaw(frozen.get(), nullptr, nullptr, nullptr) == -EALREADY);
      CHECK(tcpmig_frozen_fd(frozen.get()) == -EALREADY);
      CHECK(receive_exactly(resumed.get(), 13) == bytes_of("read and this"));
      CHECK(talk(pair.client.get(), resumed.get(), 50'000));
    }
}

TEST_CASE("capi: a refused freeze leaves the descriptor to its owner") {
  if (cannot_run_here()) return;
  World world;
  const Kit kit = make_kit();
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  tcpmig_frozen* frozen = nullptr;
  void* unread = nullptr;
  std::size_t size = 0;
  SECTION("a property that is not carried") {
    REQUIRE(::send(pair.client.get(), "u", 1, MSG_OOB) == 1);
    pollfd urgent{.fd = pair.server.get(), .events = POLLPRI, .revents = 0};
    REQUIRE(::poll(&urgent, 1, 5'000) == 1);
    CHECK(tcpmig_freeze(kit.get(), pair.server.get(), TCPMIG_WHOLE, nullptr, 0, nullptr, nullptr,
                        &frozen) == -EOPNOTSUPP);
    CHECK(std::string(tcpmig_last_error()).find("urgent") != std::string::npos);
  }
  SECTION("without CAP_NET_ADMIN") {
    int result = 0;
    std::thread([&] {
      __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
      const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3]{};
      if (::syscall(SYS_capset, &header, none) < 0) return;
      tcpmig_kit* weak = nullptr;
      if (tcpmig_kit_new(nullptr, 0, &weak) < 0) return;
      const Kit owned(weak);
      if (tcpmig_kit_features(weak) != 0 || tcpmig_kit_warning(weak, 0) == nullptr) return;
      result = tcpmig_freeze(weak, pair.server.get(), TCPMIG_REQUEST, nullptr, 0, &unread, &size,
                             &frozen);
    }).join();
    CHECK(result == -EPERM);
  }
  SECTION("a listener, a UDP socket, a file, no descriptor") {
    const UniqueFd listener = listen_at(world.b, Family::kIpv4);
    const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    for (const int fd : {listener.get(), udp.get(), file.get(), 12'345, -1})
      for (const int scope : {TCPMIG_REQUEST, TCPMIG_WHOLE}) {
        CAPTURE(fd, scope);
        CHECK(tcpmig_freeze(kit.get(), fd, scope, nullptr, 0, &unread, &size, &frozen) < 0);
        CHECK(*tcpmig_last_error() != '\0');
        CHECK((fd == 12'345 || fd == -1 || ::fcntl(fd, F_GETFD) >= 0));
      }
  }
  CHECK(frozen == nullptr);
  CHECK(unread == nullptr);
  CHECK(talk(pair.client.get(), pair.server.get(), 10'000));
}

TEST_CASE("capi: what is captured goes with a thawed connection, or with a resumed one") {
  if (cannot_run_here()) return;
  World world;
  const Kit kit = make_kit();
  REQUIRE((tcpmig_kit_features(kit.get()) & TCPMIG_HAS_LOCK_PROGRAM) != 0);
  for (const bool moves : {false, true}) {
    CAPTURE(moves);
    world.route_to(world.a);
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    REQUIRE(talk(pair.client.get(), pair.server.get(), 1'000));
    const Captures captures = make_captures();
    const FrozenHandle frozen = freeze(kit, pair.server, TCPMIG_WHOLE);
    send_all(pair.client.get(), bytes_of("captured"));
    wait_until("the capture", [&] {
      tcpmig_captures_collect(captures.get(), kit.get());
      return tcpmig_captures_count(captures.get()) > 0;
    });
    std::uint64_t cookie = 0;
    const void* segment = nullptr;
    std::size_t size = 0;
    REQUIRE(tcpmig_captures_get(captures.get(), 0, &cookie, &segment, &size) == 0);
    CHECK(cookie == tcpmig_cookie(frozen.get()));
    CHECK(tcpmig_captures_get(captures.get(), 1'000, &cookie, &segment, &size) == -ENOENT);
    UniqueFd server;
    if (moves) {
      // the client says nothing by itself: no packet of its retransmission comes to B
      server = resume_at_b(world, tcpmig_frozen_snapshot(frozen.get()));
      const auto in = world.b.enter();
      Bytes damaged(static_cast<const std::byte*>(segment),
                    static_cast<const std::byte*>(segment) + size);
      CHECK(tcpmig_inject(tcpmig_frozen_snapshot(frozen.get()), nullptr, 0, damaged.data(), 7,
                          nullptr, nullptr) == -EBADMSG);
      CHECK(tcpmig_inject(tcpmig_frozen_snapshot(frozen.get()), nullptr, 0, damaged.data(), size,
                          nullptr, nullptr) == 0);
      CHECK(tcpmig_commit(frozen.get()) == 0);
    } else {
      const auto in = world.a.enter();
      server.reset(tcpmig_thaw(frozen.get(), captures.get(), nullptr, nullptr));
    }
    CHECK(receive_exactly(server.get(), 8) == bytes_of("captured"));
    CHECK(talk(pair.client.get(), server.get(), 10'000));
  }
}

TEST_CASE("capi: settling takes in what has slipped past the lock") {
  if (cannot_run_here()) return;
  World world;
  const Kit kit = make_kit();
  for (const int scope : {TCPMIG_REQUEST, TCPMIG_WHOLE})
    for (const bool fin : {false, true}) {
      CAPTURE(scope, fin);
      world.route_to(world.a);
      Pair pair = connect_pair(world, world.a, Family::kIpv4);
      send_all(pair.client.get(), bytes_of("in time"));
      wait_until("data", [&] { return bytes_waiting(pair.server.get()) == 7; });
      const FrozenHandle frozen = freeze(kit, pair.server, scope, bytes_of("read "));
      let_through(frozen);
      send_all(pair.client.get(), bytes_of(" late"));
      if (fin) REQUIRE(::shutdown(pair.client.get(), SHUT_WR) == 0);
      void* bytes = nullptr;
      std::size_t size = 0;
      int ended = 0;
      wait_until("late bytes", [&] {
        tcpmig_free(bytes);
        const int late = tcpmig_late(frozen.get(), &bytes, &size, &ended);
        return late == 1 && size == 5 && ended == (fin ? 1 : 0);
      });
      CHECK(std::memcmp(bytes, " late", 5) == 0);
      tcpmig_free(bytes);
      REQUIRE(tcpmig_settle(frozen.get()) == 0);
      CHECK(tcpmig_late(frozen.get(), &bytes, &size, &ended) == 0);
      const tcpmig_snapshot* snapshot = tcpmig_frozen_snapshot(frozen.get());
      CHECK(queue(snapshot, TCPMIG_RECEIVED) == bytes_of("read in time late"));
      tcpmig_info info{};
      REQUIRE(tcpmig_snapshot_info(snapshot, &info, sizeof info) == 0);
      CHECK(info.state == (fin ? TCPMIG_CLOSE_WAIT : TCPMIG_ESTABLISHED));
      const UniqueFd resumed = resume_at_b(world, snapshot);
      CHECK(tcpmig_commit(frozen.get()) == 0);
      CHECK(receive_exactly(resumed.get(), 17) == bytes_of("read in time late"));
    }
}

TEST_CASE("capi: a connection that is reset while it settles comes back") {
  if (cannot_run_here()) return;
  World world;
  const Kit kit = make_kit();
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  send_all(pair.client.get(), bytes_of("request"));
  wait_until("data", [&] { return bytes_waiting(pair.server.get()) == 7; });
  const FrozenHandle frozen = freeze(kit, pair.server, TCPMIG_REQUEST, bytes_of("a "));
  let_through(frozen);
  const linger at_once{1, 0};
  REQUIRE(::setsockopt(pair.client.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
  pair.client.reset();
  wait_until("the reset",
             [&] { return info_of(tcpmig_frozen_fd(frozen.get())).tcpi_state == BPF_TCP_CLOSE; });
  CHECK(tcpmig_settle(frozen.get()) == -EOPNOTSUPP);
  CHECK(tcpmig_frozen_fd(frozen.get()) == -EALREADY);
  CHECK(tcpmig_settle(frozen.get()) == -EALREADY);
  CHECK(tcpmig_commit(frozen.get()) == -EALREADY);
  CHECK(queue(tcpmig_frozen_snapshot(frozen.get()), TCPMIG_RECEIVED) == bytes_of("a request"));
  const UniqueFd back(tcpmig_thaw(frozen.get(), nullptr, nullptr, nullptr));
  CHECK(back);
}

TEST_CASE("capi: what a resume says that cannot be") {
  if (cannot_run_here()) return;
  World world;
  const Kit kit = make_kit();
  Pair pair = connect_pair(world, world.a, Family::kIpv4);
  const FrozenHandle frozen = freeze(kit, pair.server, TCPMIG_WHOLE);
  const tcpmig_snapshot* snapshot = tcpmig_frozen_snapshot(frozen.get());
  {
    const auto in = world.a.enter();  // the socket is still here
    CHECK(tcpmig_resume(snapshot, nullptr, 0, nullptr, nullptr) == -EADDRNOTAVAIL);
  }
  const auto in = world.b.enter();
  sockaddr_storage text{};
  const auto resume = [&](const char* address, socklen_t less = 0) {
    const auto [storage, length] =
        tcpmig::Endpoint{tcpmig::Address::parse(address).value(), 0}.to_sockaddr();
    text = storage;
    return tcpmig_resume(snapshot, reinterpret_cast<const sockaddr*>(&text), length - less, nullptr,
                         nullptr);
  };
  CHECK(resume("0.0.0.0") == -EINVAL);
  CHECK(resume("2001:db8::10") == -EINVAL);  // another family
  CHECK(resume("10.91.2.2", 9) == -EINVAL);
  text.ss_family = AF_UNIX;
  CHECK(tcpmig_resume(snapshot, reinterpret_cast<const sockaddr*>(&text), sizeof text, nullptr,
                      nullptr) == -EINVAL);
  const UniqueFd back(tcpmig_thaw(frozen.get(), nullptr, nullptr, nullptr));
  REQUIRE(back);
  CHECK(talk(pair.client.get(), back.get(), 10'000));
}

TEST_CASE("capi: with a resume kit the congestion window goes along, without one it does not") {
  if (cannot_run_here()) return;
  tcpmig_resume_kit* made = nullptr;
  REQUIRE(tcpmig_resume_kit_new(&made) == 0);
  const ResumeKit resume_kit(made);
  const bool works = (tcpmig_resume_kit_features(made) & TCPMIG_HAS_CONGESTION_PROGRAM) != 0;
  CHECK((tcpmig_resume_kit_warning(made, 0) == nullptr) == works);
  if (!works) {
    WARN("skipped: " << tcpmig_resume_kit_warning(made, 0));
    return;
  }
  const Kit kit = make_kit();
  for (const bool with_kit : {true, false}) {
    CAPTURE(with_kit);
    World world;
    Pair pair = connect_pair(world, world.a, Family::kIpv4);
    const Bytes much = pattern(4'000'000);
    REQUIRE(carry(pair.server.get(), pair.client.get(), much) == much);
    wait_until("acknowledged", [&] { return info_of(pair.server.get()).tcpi_unacked == 0; });
    const auto window = info_of(pair.server.get()).tcpi_snd_cwnd;
    REQUIRE(window > 20);
    const FrozenHandle frozen = freeze(kit, pair.server, TCPMIG_WHOLE);
    const SnapshotHandle snapshot = copy_by_wire(frozen);
    world.route_to(world.b);
    UniqueFd resumed;
    {
      const auto in = world.b.enter();
      resumed.reset(tcpmig_resume_with(with_kit ? made : nullptr, snapshot.get(), nullptr, 0,
                                       nullptr, nullptr));
    }
    INFO(tcpmig_last_error());
    REQUIRE(resumed);
    CHECK(tcpmig_commit(frozen.get()) == 0);
    CHECK((info_of(resumed.get()).tcpi_snd_cwnd == window) == with_kit);
    CHECK(talk(pair.client.get(), resumed.get(), 100'000));
  }
}

TEST_CASE("capi: a resume kit without rights says what is missing, and resumes nothing less") {
  if (cannot_run_here()) return;
  std::string warning;
  std::uint32_t features = 1;
  std::thread([&] {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3]{};
    if (::syscall(SYS_capset, &header, none) < 0) return;
    tcpmig_resume_kit* weak = nullptr;
    if (tcpmig_resume_kit_new(&weak) < 0) return;
    const ResumeKit owned(weak);
    features = tcpmig_resume_kit_features(weak);
    if (const char* said = tcpmig_resume_kit_warning(weak, 0)) warning = said;
  }).join();
  CHECK(features == 0);
  CHECK(warning.find("starts slowly") != std::string::npos);
}
