// SPDX-License-Identifier: MIT
// Locked sockets that a killed dispatcher leaves to the kernel.
#include <linux/bpf.h>
#include <linux/filter.h>
#include <sys/socket.h>

#include "catch.hpp"
#include "dispatcher/leftovers.hpp"
#include "lab/process.hpp"
#include "sys/check.hpp"
#include "sys/sock_diag.hpp"
#include "sys_support.hpp"

namespace sys = tcpmig::sys;
using namespace sys_test;
using namespace std::chrono_literals;
using tcpmig::dispatcher::Leftovers;

namespace {

/// What the lock does to a socket, for this purpose: nothing gets in.
void lock(const UniqueFd& socket) {
  sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
  const sock_fprog program{1, &nothing};
  sys::check("SO_ATTACH_FILTER",
             ::setsockopt(socket.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
}

void reset(UniqueFd& socket) {
  const linger at_once{1, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  socket.reset();
}

/// connect() from a port that was used before, without waiting.
UniqueFd connect_again(const Endpoint& from, const Endpoint& to) {
  UniqueFd fd(sys::check(
      "socket", ::socket(from.address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const auto [own, own_length] = from.to_sockaddr();
  sys::check("bind", ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), own_length));
  const auto [peer, peer_length] = to.to_sockaddr();
  ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&peer), peer_length);
  return fd;
}

}  // namespace

TEST_CASE("dispatcher: a locked socket of a killed one does not stand in the way of its client") {
  if (cannot_run_here()) return;
  const Namespace space("left");
  const auto inside = space.enter();
  const std::string where = GENERATE("127.0.0.1", "::1");
  const Endpoint service{address(where), 8000};
  const UniqueFd listener = bound_socket(SOCK_STREAM, service);
  UniqueFd client = connected_socket(service);
  UniqueFd server = accepted_socket(listener);
  const Endpoint name = name_of(client);
  const UniqueFd other = connected_socket(service);
  const UniqueFd in_use = accepted_socket(listener);  // of a process that lives
  lock(in_use);
  lock(server);
  server.reset();
  reset(client);

  sys::SockDiag diag;
  const auto block = sys::Prefix::parse(where + (where == "::1" ? "/128" : "/8")).value();
  REQUIRE(diag.find(service, name));
  CHECK_FALSE(
      Leftovers({sys::Prefix::parse("192.0.2.0/24").value(), {}}).sweep());  // not its block
  client = connect_again(name, service);
  CHECK_FALSE(readable_within(listener.get(), 300ms));

  Leftovers leftovers({block, {}});
  CHECK(tcpmig::lab::wait_until(10s, [&] { return !leftovers.sweep(); }));
  CHECK(readable_within(listener.get(), 10s));  // the repeated SYN
  CHECK(name_of(client) == name);
  CHECK(diag.find(service, name_of(other)));
}

TEST_CASE("dispatcher: a connection that ends in order is none of the left ones") {
  if (cannot_run_here()) return;
  const Namespace space("left");
  const auto inside = space.enter();
  const Endpoint service{address("127.0.0.1"), 8000};
  const UniqueFd listener = bound_socket(SOCK_STREAM, service);
  const UniqueFd client = connected_socket(service);
  UniqueFd server = accepted_socket(listener);
  server.reset();
  sys::SockDiag diag;
  REQUIRE(tcpmig::lab::wait_until(10s, [&] {  // the client's ACK of the FIN; it may still send
    const auto socket = diag.find(service, name_of(client));
    return socket && socket->state == BPF_TCP_FIN_WAIT2;
  }));
  Leftovers leftovers({sys::Prefix::parse("127.0.0.0/8").value()});
  CHECK_FALSE(leftovers.sweep());
  CHECK(diag.find(service, name_of(client)));
}
