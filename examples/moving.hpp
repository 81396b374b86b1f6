// SPDX-License-Identifier: MIT
// What echo.cpp and stream.cpp share: a connection goes to another process, with what the application knows about it. Said over a
// plain TCP connection (use one that you trust): two lengths (4 bytes each, network order), the application's bytes, the snapshot; "R"
// for resumed; "C" for committed.
#pragma once
#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <tcpmig/codec.hpp>
#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

namespace moving {

using Bytes = std::vector<std::byte>;

template <typename Integer>
Integer check(const std::string& what, Integer result) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return result;
}

/// A socket that listens, or that is connected.
inline tcpmig::UniqueFd open_socket(const std::string& host, const std::string& port,
                                    bool listening) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_flags = listening ? AI_PASSIVE : 0;
  hints.ai_socktype = SOCK_STREAM;
  if (const int error = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found))
    throw std::runtime_error(host + " port " + port + ": " + ::gai_strerror(error));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, ::freeaddrinfo);
  tcpmig::UniqueFd fd(check("socket", ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  if (!listening) {
    check(host + " port " + port, ::connect(fd.get(), found->ai_addr, found->ai_addrlen));
    return fd;
  }
  const int on = 1;
  check("SO_REUSEADDR", ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
  check(host + " port " + port, ::bind(fd.get(), found->ai_addr, found->ai_addrlen));
  check("listen", ::listen(fd.get(), 8));
  return fd;
}

inline void limit_waiting(int fd) {
  const timeval limit{.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

inline void send_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    bytes = bytes.subspan(static_cast<std::size_t>(check("send", count)));
  }
}

inline Bytes receive_exactly(int fd, std::size_t size) {
  Bytes bytes(size);
  const ssize_t count = check("receive", ::recv(fd, bytes.data(), size, MSG_WAITALL));
  if (static_cast<std::size_t>(count) < size)
    throw std::runtime_error("the other process has closed the connection to it");
  return bytes;
}

inline void say(int fd, char word) { send_all(fd, std::as_bytes(std::span(&word, 1))); }
inline void expect(int fd, char word) {
  if (receive_exactly(fd, 1)[0] != static_cast<std::byte>(word))
    throw std::runtime_error("the other process says something else than was expected");
}

inline void send_lengths(int fd, std::size_t state, std::size_t snapshot) {
  const std::uint32_t lengths[]{htonl(static_cast<std::uint32_t>(state)),
                                htonl(static_cast<std::uint32_t>(snapshot))};
  send_all(fd, std::as_bytes(std::span(lengths)));
}

/// Where a connection goes: the process that waits at `host`, and the command that lets its packets go there (empty: none).
struct Target {
  std::string host, port, command;
};

/// The source. Returns nullopt when the connection has gone, else its descriptor: it goes on here, and std::cerr says why.
inline std::optional<tcpmig::UniqueFd> move_away(const tcpmig::FreezeKit& kit, tcpmig::UniqueFd fd,
                                                 const Target& to, const Bytes& state) {
  auto frozen = tcpmig::try_freeze(std::move(fd), {}, kit, tcpmig::Scope::kWhole);
  if (frozen) frozen = tcpmig::settle(std::move(*frozen), kit);
  if (!frozen) {
    std::cerr << "cannot freeze: " << frozen.error().reason << "\n";
    return std::move(frozen.error().fd);
  }
  try {
    const Bytes snapshot = tcpmig::encode(frozen->snapshot());
    const tcpmig::UniqueFd target = open_socket(to.host, to.port, false);
    limit_waiting(target.get());
    send_lengths(target.get(), state.size(), snapshot.size());
    send_all(target.get(), state);
    send_all(target.get(), snapshot);
    expect(target.get(), 'R');
    if (!to.command.empty() && std::system(to.command.c_str()) != 0)
      throw std::runtime_error("the command failed: " + to.command);
    frozen->commit();
    say(target.get(), 'C');
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    if (frozen->fd() >= 0) return frozen->thaw({}, {});  // not committed
  }
  return std::nullopt;
}

struct Adopted {
  tcpmig::UniqueFd fd;
  Bytes state;
};

/// The target, for what came on `source`. Throws when the connection is still the source's.
inline Adopted adopt(const tcpmig::FreezeKit& kit, int source,
                     const std::optional<tcpmig::Endpoint>& local) {
  constexpr std::size_t kMost = 200U << 20;  // three queues of 64 MB, and some
  limit_waiting(source);
  std::uint32_t lengths[2];
  std::memcpy(lengths, receive_exactly(source, sizeof lengths).data(), sizeof lengths);
  const std::size_t state_size = ntohl(lengths[0]), size = ntohl(lengths[1]);
  if (state_size > 4096 || size > kMost) throw std::runtime_error("the source announces too much");
  Adopted adopted;
  adopted.state = receive_exactly(source, state_size);
  const auto snapshot = tcpmig::decode(receive_exactly(source, size));
  if (!snapshot) throw std::runtime_error(to_string(snapshot.error()));
  auto here = local;
  if (here) here->port = snapshot->local.port;
  adopted.fd = tcpmig::repair_resume(*snapshot, here);
  try {
    say(source, 'R');
    expect(source, 'C');
  } catch (
      const std::exception&) {  // it is still the source's: no packet may tell the client of ours
    tcpmig::freeze(std::move(adopted.fd), {}, kit, tcpmig::Scope::kWhole).commit();
    throw;
  }
  return adopted;
}

/// The local address of an argument, for hosts behind a NAT.
inline std::optional<tcpmig::Endpoint> local_of(const char* argument) {
  if (argument == nullptr) return std::nullopt;
  const auto address = tcpmig::Address::parse(argument);
  if (!address) throw std::runtime_error(address.error());
  return tcpmig::Endpoint{*address, 0};
}

}  // namespace moving
