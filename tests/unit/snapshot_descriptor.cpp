// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <stdexcept>
#include <string>

#include <tcpmig/resume.hpp>

#include "catch.hpp"
#include "sys/unique_fd.hpp"

using tcpmig::receive_descriptor;
using tcpmig::send_descriptor;
using tcpmig::sys::UniqueFd;

namespace {

std::pair<UniqueFd, UniqueFd> socket_pair(int type) {
  std::array<int, 2> fds{};
  REQUIRE(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds.data()) == 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

ino_t inode_of(int fd) {
  struct stat status{};
  REQUIRE(::fstat(fd, &status) == 0);
  return status.st_ino;
}

}  // namespace

TEST_CASE("descriptors and their notes arrive one by one, in order") {
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    const auto [here, there] = socket_pair(type);
    const auto [one, other] = socket_pair(SOCK_STREAM);
    const std::string longest(4096, 'n');
    send_descriptor(here.get(), one.get(), "first");
    send_descriptor(here.get(), other.get(), "");
    send_descriptor(here.get(), one.get(), longest);
    const auto a = receive_descriptor(there.get()), b = receive_descriptor(there.get()),
               c = receive_descriptor(there.get());
    REQUIRE(a);
    REQUIRE(b);
    REQUIRE(c);
    CHECK(a->second == "first");
    CHECK(b->second.empty());
    CHECK(c->second == longest);
    CHECK(inode_of(a->first.get()) == inode_of(one.get()));
    CHECK(inode_of(b->first.get()) == inode_of(other.get()));
    CHECK((::fcntl(a->first.get(), F_GETFD) & FD_CLOEXEC) != 0);
  }
}

TEST_CASE("the end of the peer is nothing, anything else is an error") {
  auto [here, there] = socket_pair(SOCK_STREAM);
  SECTION("the end") {
    here.reset();
    CHECK(!receive_descriptor(there.get()));
  }
  SECTION("bytes without a descriptor") {
    REQUIRE(::send(here.get(), "\0\0\0\0", 4, 0) == 4);
    CHECK_THROWS_AS(receive_descriptor(there.get()), std::runtime_error);
  }
  SECTION("a note that is too long") {
    CHECK_THROWS_AS(send_descriptor(here.get(), there.get(), std::string(4097, 'n')),
                    std::invalid_argument);
  }
  SECTION("nobody there") {
    there.reset();
    CHECK_THROWS_AS(send_descriptor(here.get(), here.get(), "x"), std::system_error);
  }
}
