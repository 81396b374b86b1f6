// SPDX-License-Identifier: MIT
#include "manual/go_on.hpp"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <charconv>
#include <utility>

#include <tcpmig/resume.hpp>

#include "conn/repair_mode.hpp"
#include "manual/hold.hpp"
#include "manual/program.hpp"
#include "manual/snapshot_file.hpp"
#include "sys/check.hpp"
#include "sys/errors.hpp"
#include "sys/netns.hpp"

namespace tcpmig::manual {
namespace {

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) return std::nullopt;
  return port;
}

std::optional<LocalEnd> end_of(std::string_view address, std::string_view port) {
  const auto parsed = sys::Address::parse(address);
  const auto number = parse_port(port);
  if (!parsed || !number) return std::nullopt;
  return LocalEnd{.address = *parsed, .port = number};
}

/// Out of the way of the numbers that the program shall find it at.
sys::UniqueFd above(sys::UniqueFd fd, int number) {
  return sys::UniqueFd(
      sys::check("dup the connection", ::fcntl(fd.get(), F_DUPFD_CLOEXEC, number)));
}

void enter_netns(const std::string& name) {
  if (name.empty()) return;
  sys::UniqueFd netns;
  try {
    netns = sys::open_netns(name);
  } catch (const std::system_error& error) {
    if (error.code().value() != ENOENT) throw;
    throw sys::NotFound("there is no network namespace " + name + " (`ip netns` lists them)");
  }
  sys::check("enter network namespace " + name, ::setns(netns.get(), CLONE_NEWNET));
}

/// What a program finds in its environment about a connection that it is given.
void describe_in_environment(const sys::Endpoint& peer, const std::optional<int>& fd) {
  ::setenv("REMOTE_ADDR", peer.address.str().c_str(), 1);
  ::setenv("REMOTE_PORT", std::to_string(peer.port).c_str(), 1);
  if (fd != 3) return;
  ::setenv("LISTEN_FDS", "1", 1);
  ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
  ::setenv("LISTEN_FDNAMES", "connection", 1);
}

/// dup2() gives a descriptor without FD_CLOEXEC.
void place(int connection, const std::optional<int>& fd) {
  if (fd) {
    sys::check("dup2 to descriptor " + std::to_string(*fd), ::dup2(connection, *fd));
    return;
  }
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO})
    sys::check("dup2 to descriptor " + std::to_string(standard), ::dup2(connection, standard));
}

/// Whatever descriptors there are of it: the last close() in repair sends nothing.
void end_silently(int connection) noexcept {
  try {
    conn::enter_repair(connection);
  } catch (const std::system_error&) {  // it was in repair a moment ago
  }
}

/// Nothing of ours shall get the number that the program is to find the connection at.
void reserve(int fd) {
  if (::fcntl(fd, F_GETFD) >= 0) return;
  sys::UniqueFd null(sys::check("open /dev/null", ::open("/dev/null", O_RDWR | O_CLOEXEC)));
  if (null.get() == fd)
    static_cast<void>(null.release());
  else
    sys::check("dup3 to descriptor " + std::to_string(fd), ::dup3(null.get(), fd, O_CLOEXEC));
}

void require_number(int fd) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && static_cast<rlim_t>(fd) + 8 > limit.rlim_cur)
    throw sys::WrongSetup("descriptor " + std::to_string(fd) +
                          " is beyond what a process may have (" + std::to_string(limit.rlim_cur) +
                          ": `ulimit -n`)");
}

}  // namespace

std::optional<LocalEnd> parse_local(const std::string& text) {
  if (const auto address = sys::Address::parse(text))
    return LocalEnd{.address = *address, .port = {}};
  const std::string_view view = text;
  const auto colon = view.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  if (view.front() == '[' && view[colon - 1] == ']')
    return end_of(view.substr(1, colon - 2), view.substr(colon + 1));
  // without brackets nobody can tell a port from the end of an IPv6 address
  if (view.find(':') != colon) return std::nullopt;
  return end_of(view.substr(0, colon), view.substr(colon + 1));
}

void go_on(const GoOn& wanted) {
  Snapshot snapshot = read_snapshot(wanted.file);
  // programs that are given a connection expect that reading it waits
  if (snapshot.settings) snapshot.settings->nonblocking = false;
  sys::Endpoint local = snapshot.local;
  if (wanted.local) local = {wanted.local->address, wanted.local->port.value_or(local.port)};
  if (wanted.fd) {
    require_number(*wanted.fd);
    reserve(*wanted.fd);
  }
  enter_netns(wanted.netns);
  require_executable(wanted.command);
  auto held = HeldPlace::find({local, snapshot.peer});
  const sys::UniqueFd connection =
      above(repair_resume(snapshot, local), wanted.fd.value_or(STDERR_FILENO) + 1);
  try {
    if (held) held->taken();
    place(connection.get(), wanted.fd);
    describe_in_environment(snapshot.peer, wanted.fd);
    execute(wanted.command);
  } catch (...) {
    end_silently(connection.get());
    throw;
  }
}

}  // namespace tcpmig::manual
