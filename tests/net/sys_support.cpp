// SPDX-License-Identifier: MIT
#include "sys_support.hpp"

#include <bpf/bpf.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <iostream>
#include <thread>

#include "sys/check.hpp"

namespace sys_test {

namespace sys = tcpmig::sys;
using sys::check;

namespace {

std::string name_with_pid(const std::string& prefix) { return prefix + std::to_string(::getpid()); }

/// mov r0, result; exit
UniqueFd load(bpf_prog_type type, int result, const char* name) {
  const bpf_insn code[] = {
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = result},
      {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
  return UniqueFd(sys::check_errno(
      "load a BPF program", bpf_prog_load(type, name, "GPL", code, std::size(code), nullptr)));
}

}  // namespace

bool cannot_run_here() {
  if (::geteuid() == 0) return false;
  std::cout << "SKIPPED: needs root\n";
  return true;
}

Namespace::Namespace(const std::string& suffix) : name_(name_with_pid("tmt-sys-") + "-" + suffix) {
  sys::create_netns(name_);
}
Namespace::~Namespace() { sys::remove_netns(name_); }

Pair::Pair() : left("left"), right("right") {
  const UniqueFd right_fd = sys::open_netns(right.name());
  const auto configure = [](const Namespace& where, const std::string& link, const char* v4,
                            const char* v6) {
    const auto inside = where.enter();
    sys::Netlink netlink;
    netlink.set_link(link, true);
    const int index = netlink.find_link(link).value().index;
    netlink.add_address(index, prefix(v4));
    netlink.add_address(index, prefix(v6));
    return index;
  };
  {
    const auto inside = left.enter();
    sys::Netlink().create_veth("l0", "r0", right_fd.get());
  }
  left_index = configure(left, "l0", "10.9.0.1/24", "fd09::1/64");
  right_index = configure(right, "r0", "10.9.0.2/24", "fd09::2/64");
}

bool Pair::delivers() const {
  const Endpoint there{address("10.9.0.2"), 9999};
  const auto receiver = [&] {
    const auto inside = right.enter();
    return bound_socket(SOCK_DGRAM, there);
  }();
  const auto sender = [&] {
    const auto inside = left.enter();
    return bound_socket(SOCK_DGRAM, {address("10.9.0.1"), 0});
  }();
  const auto [storage, length] = there.to_sockaddr();
  check("sendto",
        ::sendto(sender.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&storage), length));
  return readable_within(receiver.get(), std::chrono::milliseconds(300));
}

Pins::Pins() : directory_(name_with_pid("/sys/fs/bpf/tcpmig-test-")) {}
Pins::~Pins() { directory_.remove_all(); }

UniqueFd load_tc(int result, const char* name) {
  return load(BPF_PROG_TYPE_SCHED_CLS, result, name);
}
UniqueFd load_xdp(int result, const char* name) { return load(BPF_PROG_TYPE_XDP, result, name); }

UniqueFd bound_socket(int type, const Endpoint& local) {
  UniqueFd fd(check("socket", ::socket(local.address.family(), type | SOCK_CLOEXEC, 0)));
  const int on = 1;
  check("SO_REUSEADDR", ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
  const auto [storage, length] = local.to_sockaddr();
  check("bind " + local.str(),
        ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length));
  if (type == SOCK_STREAM) check("listen", ::listen(fd.get(), 16));
  return fd;
}

UniqueFd connected_socket(const Endpoint& peer) {
  UniqueFd fd(check("socket", ::socket(peer.address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0)));
  const auto [storage, length] = peer.to_sockaddr();
  check("connect " + peer.str(),
        ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length));
  return fd;
}

UniqueFd accepted_socket(const UniqueFd& listener) {
  return UniqueFd(check("accept", ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)));
}

Endpoint name_of(const UniqueFd& socket) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  check("getsockname", ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&storage), &length));
  return Endpoint::from_sockaddr(storage);
}

bool readable_within(int fd, std::chrono::milliseconds deadline) {
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  return check("poll", ::poll(&entry, 1, static_cast<int>(deadline.count()))) == 1;
}

bool holds_within(std::chrono::milliseconds deadline, const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace sys_test
