// SPDX-License-Identifier: MIT
// Connections that programs give away and take, in C: the messages with an agent, which the test plays.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <tcpmig.h>
#include <tcpmig/migrate.hpp>
#include <tcpmig/resume.hpp>

#include "catch.hpp"
#include "conn/parcel.hpp"
#include "handover/handover.h"

using namespace tcpmig;

namespace {

struct Pair {
  Pair() { REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0); }
  ~Pair() {
    for (const int end : ends)
      if (end >= 0) ::close(end);
  }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;
  int ends[2] = {-1, -1};
};

std::vector<std::byte> frame(const std::string& note, std::uint32_t length) {
  const auto head = std::as_bytes(std::span(&length, 1));
  std::vector<std::byte> bytes(head.begin(), head.end());
  const auto text = std::as_bytes(std::span(note));
  bytes.insert(bytes.end(), text.begin(), text.end());
  return bytes;
}

struct Taken {
  int result = 0, fd = -1, in_the_middle = -1;
  std::string blob;
};

Taken take(int agent) {
  Taken taken;
  void* blob = nullptr;
  std::size_t size = 0;
  taken.result = tcpmig_take_connection(agent, &taken.fd, &taken.in_the_middle, &blob, &size);
  if (blob != nullptr) taken.blob.assign(static_cast<const char*>(blob), size);
  tcpmig_free(blob);
  if (taken.fd >= 0) ::close(taken.fd);
  return taken;
}

}  // namespace

TEST_CASE("capi: a connection is taken, new or in the middle") {
  const UniqueFd any(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));  // not in repair
  const std::string text(100'000, 'b');
  const UniqueFd blob = conn::make_blob(std::as_bytes(std::span(text)));
  const auto offered = [&](std::span<const int> descriptors, std::uint32_t length = 9) {
    const Pair pair;
    conn::send_parcel(pair.ends[0], frame("192.0.2.1", length), descriptors);
    std::thread agent([&] {
      if (handover_receive(pair.ends[0], nullptr) == HANDOVER_TAKEN)
        handover_send(pair.ends[0], HANDOVER_GO, -1);
    });
    const Taken taken = take(pair.ends[1]);
    ::shutdown(pair.ends[1], SHUT_RDWR);
    agent.join();
    return taken;
  };
  const int fresh[]{any.get()}, whole[]{any.get(), blob.get()};
  const Taken first = offered(fresh);
  CHECK(first.result == 1);
  CHECK(first.in_the_middle == 0);
  CHECK(first.blob.empty());
  const Taken second = offered(whole);
  CHECK(second.result == 1);
  CHECK(second.in_the_middle == 1);
  CHECK(second.blob == text);

  CHECK(offered({}).result == -EIO);
  CHECK(offered(fresh, 8).result == -EIO);
  const int no_blob[]{any.get(), any.get()};  // not sealed memory
  CHECK(offered(no_blob).result == -EINVAL);
  const UniqueFd large = conn::make_blob(std::vector<std::byte>(kMaxBlob + 1));
  const int too_large[]{any.get(), large.get()};
  CHECK(offered(too_large).result == -EMSGSIZE);
  {
    Pair pair;  // an agent that has ended
    ::close(std::exchange(pair.ends[0], -1));
    CHECK(take(pair.ends[1]).result == 0);
  }
  int fd = 0, middle = 0;
  void* bytes = nullptr;
  std::size_t size = 0;
  CHECK(tcpmig_take_connection(-1, nullptr, &middle, &bytes, &size) == -EINVAL);
  CHECK(tcpmig_take_connection(-1, &fd, nullptr, &bytes, &size) == -EINVAL);
  CHECK(tcpmig_take_connection(-1, &fd, &middle, nullptr, &size) == -EINVAL);
  CHECK(tcpmig_take_connection(-1, &fd, &middle, &bytes, &size) == -EBADF);
}

TEST_CASE("capi: what is not given away stays the caller's") {
  const UniqueFd any(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto is_open = [&] { return ::fcntl(any.get(), F_GETFD) >= 0; };
  CHECK(tcpmig_migrate(any.get(), nullptr, nullptr, 0, nullptr) == -EINVAL);
  CHECK(tcpmig_migrate(any.get(), "server2", nullptr, 1, nullptr) == -EINVAL);
  ::unsetenv(HANDOVER_ENVIRONMENT);
  CHECK(tcpmig_migrate(any.get(), "server2", nullptr, 0, nullptr) == -ENOENT);
  CHECK(std::string(tcpmig_last_error()).find("tcpmig exec") != std::string::npos);
  ::setenv(HANDOVER_ENVIRONMENT, "/nonexistent/agent,,", 1);
  CHECK(tcpmig_migrate(any.get(), "server2", nullptr, 0, nullptr) == -ENOENT);
  CHECK(std::string(tcpmig_last_error()).find("/nonexistent/agent") != std::string::npos);
  const std::string large(kMaxBlob + 1, 'x');
  CHECK(tcpmig_migrate(any.get(), "server2", large.data(), large.size(), nullptr) == -EMSGSIZE);
  ::unsetenv(HANDOVER_ENVIRONMENT);
  CHECK(is_open());
}
