// SPDX-License-Identifier: MIT
// The C API without a connection: arguments, bytes, errors.
#include <sys/socket.h>
#include <sys/un.h>
#include <tcpmig.h>

#include <cstring>
#include <string>
#include <thread>

#include <tcpmig/codec.hpp>

#include "capi/guard.hpp"
#include "catch.hpp"
#include "cli/version.hpp"
#include "sys/address.hpp"

using tcpmig::capi::guarded;

namespace {

std::vector<std::byte> encoded_sample() {
  tcpmig::Snapshot snapshot;
  snapshot.local = {tcpmig::Address::parse("192.0.2.1").value(), 80};
  snapshot.peer = {tcpmig::Address::parse("198.51.100.7").value(), 4000};
  snapshot.rcv_nxt = {5};
  snapshot.snd_una = snapshot.snd_nxt = {7};
  snapshot.received = {std::byte{1}, std::byte{2}};
  snapshot.wscale = tcpmig::WindowScale{.snd = 3, .rcv = 9};
  return tcpmig::encode(snapshot);
}

}  // namespace

TEST_CASE("capi: the version is the project's") {
  CHECK(std::string(tcpmig_version_string()) == tcpmig::cli::kVersion);
  const auto version = tcpmig_version();
  CHECK(std::to_string(version >> 16) + "." + std::to_string(version >> 8 & 255) + "." +
            std::to_string(version & 255) ==
        tcpmig_version_string());
}

TEST_CASE("capi: null is refused, or does nothing") {
  std::size_t size = 1;
  const void* bytes = nullptr;
  void* copy = nullptr;
  int number = 0;
  tcpmig_kit* kit = nullptr;
  CHECK(tcpmig_kit_new(nullptr, 0, nullptr) == -EINVAL);
  CHECK(std::string(tcpmig_last_error()) == "kit: must not be null");
  CHECK(tcpmig_kit_new(nullptr, 4, &kit) == -EINVAL);
  CHECK(tcpmig_kit_new(nullptr, TCPMIG_KIT_SMALL_WINDOW, &kit) == -EINVAL);
  for (const char* name : {"", ".", "..", "a/b"}) CHECK(tcpmig_kit_new(name, 0, &kit) == -EINVAL);
  CHECK(kit == nullptr);
  CHECK(tcpmig_kit_features(nullptr) == 0);
  CHECK(tcpmig_kit_warning(nullptr, 0) == nullptr);
  CHECK(tcpmig_kit_captures_fd(nullptr) == -EINVAL);
  CHECK(tcpmig_kit_captures_lost(nullptr) == 0);
  CHECK(tcpmig_captures_new(nullptr) == -EINVAL);
  CHECK(tcpmig_captures_collect(nullptr, nullptr) == -EINVAL);
  CHECK(tcpmig_captures_count(nullptr) == 0);
  CHECK(tcpmig_captures_get(nullptr, 0, nullptr, nullptr, nullptr) == -EINVAL);
  CHECK(tcpmig_snapshot_info(nullptr, nullptr, 0) == -EINVAL);
  CHECK(tcpmig_snapshot_local(nullptr, nullptr, nullptr) == -EINVAL);
  CHECK(tcpmig_snapshot_peer(nullptr, nullptr, nullptr) == -EINVAL);
  CHECK(tcpmig_snapshot_queue(nullptr, 0, &bytes, &size) == -EINVAL);
  CHECK(tcpmig_snapshot_encode(nullptr, nullptr, 0) == -EINVAL);
  CHECK(tcpmig_snapshot_encode_new(nullptr, &copy, &size) == -EINVAL);
  CHECK(tcpmig_snapshot_decode(nullptr, 0, nullptr) == -EINVAL);
  CHECK(tcpmig_freeze(nullptr, 0, TCPMIG_WHOLE, nullptr, 0, nullptr, nullptr, nullptr) == -EINVAL);
  CHECK(tcpmig_settle(nullptr) == -EINVAL);
  CHECK(tcpmig_late(nullptr, &copy, &size, &number) == -EINVAL);
  CHECK(tcpmig_frozen_snapshot(nullptr) == nullptr);
  CHECK(tcpmig_frozen_fd(nullptr) == -EINVAL);
  CHECK(tcpmig_cookie(nullptr) == 0);
  CHECK(tcpmig_commit(nullptr) == -EINVAL);
  CHECK(tcpmig_thaw(nullptr, nullptr, nullptr, nullptr) == -EINVAL);
  CHECK(tcpmig_resume(nullptr, nullptr, 0, nullptr, nullptr) == -EINVAL);
  CHECK(tcpmig_resume_with(nullptr, nullptr, nullptr, 0, nullptr, nullptr) == -EINVAL);
  CHECK(tcpmig_resume_kit_new(nullptr) == -EINVAL);
  CHECK(tcpmig_resume_kit_features(nullptr) == 0);
  CHECK(tcpmig_resume_kit_warning(nullptr, 0) == nullptr);
  tcpmig_resume_kit_free(nullptr);
  CHECK(tcpmig_set_repair_helper(std::string(108, 'x').c_str()) == -EINVAL);
  CHECK(tcpmig_set_repair_helper(nullptr) == 0);
  CHECK(tcpmig_inject(nullptr, nullptr, 0, nullptr, 0, nullptr, nullptr) == -EINVAL);
  CHECK(tcpmig_send_descriptor(-1, 0, nullptr, 1) == -EINVAL);
  CHECK(tcpmig_receive_descriptor(-1, nullptr, nullptr, 0, nullptr) == -EINVAL);
  tcpmig_free(nullptr);
  tcpmig_kit_free(nullptr);
  tcpmig_captures_free(nullptr);
  tcpmig_snapshot_free(nullptr);
  tcpmig_frozen_free(nullptr);
}

TEST_CASE("capi: bytes to a snapshot and back") {
  const auto bytes = encoded_sample();
  tcpmig_snapshot* snapshot = nullptr;
  REQUIRE(tcpmig_snapshot_decode(bytes.data(), bytes.size(), &snapshot) == 0);
  CHECK(tcpmig_snapshot_encode(snapshot, nullptr, 0) == static_cast<ssize_t>(bytes.size()));
  std::vector<std::byte> small(bytes.size() - 1, std::byte{0x55});
  CHECK(tcpmig_snapshot_encode(snapshot, small.data(), small.size()) ==
        static_cast<ssize_t>(bytes.size()));
  CHECK(small == std::vector(bytes.size() - 1, std::byte{0x55}));
  std::vector<std::byte> same(bytes.size());
  CHECK(tcpmig_snapshot_encode(snapshot, same.data(), same.size()) ==
        static_cast<ssize_t>(bytes.size()));
  CHECK(same == bytes);
  struct {
    tcpmig_info known;
    std::uint32_t later;
  } info;
  std::memset(&info, 0x55, sizeof info);
  CHECK(tcpmig_snapshot_info(snapshot, &info.known, sizeof info) == 0);  // a newer program
  CHECK(info.later == 0);
  CHECK(info.known.rcv_nxt == 5);
  CHECK(info.known.options == TCPMIG_WSCALE);
  CHECK((info.known.snd_wscale == 3 && info.known.rcv_wscale == 9));
  std::memset(&info, 0x55, sizeof info);
  CHECK(tcpmig_snapshot_info(snapshot, &info.known, 8) == 0);  // an older one
  CHECK(info.known.state == TCPMIG_ESTABLISHED);
  CHECK(info.known.rcv_nxt == 0x55555555);
  sockaddr_storage address{};
  socklen_t length = 4;
  CHECK(tcpmig_snapshot_peer(snapshot, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  CHECK(length == 16);
  CHECK(address.ss_family == AF_INET);
  CHECK(tcpmig::Endpoint::from_sockaddr(address).address.str() == "0.0.0.0");  // cut
  const void* received = nullptr;
  std::size_t size = 0;
  CHECK(tcpmig_snapshot_queue(snapshot, TCPMIG_RECEIVED, &received, &size) == 0);
  CHECK(size == 2);
  CHECK(tcpmig_snapshot_queue(snapshot, 3, &received, &size) == -EINVAL);
  tcpmig_snapshot_free(snapshot);
}

TEST_CASE("capi: bytes that are no snapshot") {
  tcpmig_snapshot* snapshot = nullptr;
  const auto error_of = [&](std::vector<std::byte> bytes) {
    return tcpmig_snapshot_decode(bytes.data(), bytes.size(), &snapshot);
  };
  auto bytes = encoded_sample();
  CHECK(error_of({}) == -EBADMSG);
  CHECK(error_of({bytes.begin(), bytes.end() - 1}) == -EBADMSG);
  auto version = bytes;
  version[4] = std::byte{9};
  CHECK(error_of(version) == -EPROTONOSUPPORT);
  auto large = bytes;
  large[164] = std::byte{0x7f};
  CHECK(error_of(large) == -EFBIG);
  bytes.push_back({});
  CHECK(error_of(bytes) == -EBADMSG);
  CHECK(snapshot == nullptr);
}

TEST_CASE("capi: no exception gets out, and each thread has its own words") {
  CHECK(guarded([]() -> int { throw std::system_error(EPIPE, std::generic_category(), "x"); }) ==
        -EPIPE);
  CHECK(guarded([]() -> int { throw std::bad_alloc(); }) == -ENOMEM);
  CHECK(guarded([]() -> int { throw std::invalid_argument("bad"); }) == -EINVAL);
  CHECK(guarded([]() -> int { throw std::runtime_error(std::string(2'000, 'x')); }) == -EIO);
  CHECK(std::strlen(tcpmig_last_error()) == 511);
  CHECK(guarded([]() -> int { throw 5; }) == -EIO);
  std::string other = "?";
  std::thread([&] { other = tcpmig_last_error(); }).join();
  CHECK(other.empty());
  CHECK(std::string(tcpmig_last_error()) == "unknown exception");
}

TEST_CASE("capi: descriptors over a Unix socket") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  int fd = -1;
  std::size_t size = 0;
  char note[4] = "xxx";
  REQUIRE(tcpmig_send_descriptor(ends[0], ends[1], "hello", 5) == 0);
  REQUIRE(tcpmig_receive_descriptor(ends[1], &fd, note, 3, &size) == 1);
  CHECK(size == 5);
  CHECK(std::string(note) == "hel");
  CHECK(fd > 2);
  ::close(fd);
  CHECK(tcpmig_send_descriptor(ends[0], 12'345, "", 0) == -EBADF);
  CHECK(tcpmig_send_descriptor(ends[0], 0, std::string(4'097, 'x').data(), 4'097) == -EINVAL);
  REQUIRE(::send(ends[0], "garbage", 7, 0) == 7);
  CHECK(tcpmig_receive_descriptor(ends[1], &fd, note, 3, &size) == -EBADMSG);
  ::close(ends[0]);
  CHECK(tcpmig_receive_descriptor(ends[1], &fd, note, 3, &size) == 0);
  CHECK(fd == -1);
  ::close(ends[1]);
}
