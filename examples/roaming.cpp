// SPDX-License-Identifier: MIT
// A server behind tcpmig's switch that sends a long answer, and gives its connections to the same program of another server in the middle
// of it:
//   c++ -std=c++23 roaming.cpp -o roaming $(pkg-config --cflags --libs tcpmig-static)
// What the kernel knows of a connection the agents take along. What this program knows goes with it as a blob.
#include <endian.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <tcpmig/migrate.hpp>
#include <tcpmig/resume.hpp>
#include <thread>
#include <vector>

namespace {

constexpr const char* kUsage =
    "usage: roaming HANDOFF AGENT OTHER-NODE\n"
    "Takes connections at the Unix socket HANDOFF (`handoff` of its pool server). The answer to "
    "\"GET "
    "/..N\" is N megabytes: byte i is\n"
    "(i * 2654435761) >> 24, modulo 256. On SIGUSR1 all connections go to OTHER-NODE, by the agent "
    "at "
    "AGENT\n"
    "(/run/tcpmig/CLUSTER/NODE/exec.sock). Takes no rights.\n";

std::atomic<unsigned> moves_asked = 0;
std::string agent, other_node;

/// All that the program knows of a client.
struct Progress {
  std::uint64_t written = 0;  ///< bytes of the answer that the kernel has taken
  std::uint64_t total = 0;

  [[nodiscard]] std::vector<std::byte> encode() const {
    const std::uint64_t numbers[]{htobe64(written), htobe64(total)};
    const auto bytes = std::as_bytes(std::span(numbers));
    return {bytes.begin(), bytes.end()};
  }
  static Progress decode(const std::vector<std::byte>& bytes) {
    std::uint64_t numbers[2];
    if (bytes.size() != sizeof numbers) throw std::runtime_error("not the state of an answer");
    std::memcpy(numbers, bytes.data(), sizeof numbers);
    return {be64toh(numbers[0]), be64toh(numbers[1])};
  }
};

std::byte byte_at(std::uint64_t i) { return static_cast<std::byte>((i * 2654435761U) >> 24); }

void send_all(int fd, const void* bytes, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t sent =
        ::send(fd, static_cast<const char*>(bytes) + done, size - done, MSG_NOSIGNAL);
    if (sent < 0) throw std::system_error(errno, std::generic_category(), "send");
    done += static_cast<std::size_t>(sent);
  }
}

/// Reads a request, and begins the answer.
Progress begin(int fd) {
  std::string head;
  for (char byte = 0; !head.ends_with("\r\n\r\n"); head += byte)
    if (::recv(fd, &byte, 1, 0) != 1) throw std::runtime_error("the client has gone");
  const std::string path = head.substr(0, head.find(' ', 4));
  const Progress progress{0, std::stoull(path.substr(path.find_last_not_of("0123456789") + 1))
                                 << 20};
  const std::string answer =
      "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + std::to_string(progress.total) +
      "\r\n\r\n";
  send_all(fd, answer.data(), answer.size());
  return progress;
}

/// The descriptor, where it goes on here.
tcpmig::UniqueFd move_away(tcpmig::UniqueFd fd, const Progress& progress) {
  auto moved = tcpmig::migrate(std::move(fd), other_node, progress.encode(), {.agent = agent});
  if (moved) {
    std::cerr << "roaming: moved at byte " << progress.written << "\n";
    return {};
  }
  std::cerr << "roaming: not moved: " << moved.error().reason << "\n";
  return std::move(moved.error().fd);
}

void go_on(tcpmig::UniqueFd fd, Progress progress) {
  std::array<std::byte, 65536> chunk;
  for (unsigned seen = moves_asked; progress.written < progress.total;) {
    if (seen != moves_asked) {
      seen = moves_asked;
      fd = move_away(std::move(fd), progress);
      if (!fd) return;
    }
    const auto size = std::min<std::uint64_t>(chunk.size(), progress.total - progress.written);
    for (std::size_t i = 0; i < size; ++i) chunk[i] = byte_at(progress.written + i);
    send_all(fd.get(), chunk.data(), size);
    progress.written += size;
  }
  ::shutdown(fd.get(), SHUT_WR);
  while (::recv(fd.get(), chunk.data(), chunk.size(), 0) > 0) continue;
}

/// `channel`: a connection of the agent, which brings one of a client.
void serve(tcpmig::UniqueFd channel) {
  try {
    auto taken = tcpmig::take_any_connection(channel.get());
    channel.reset();
    if (!taken) return;
    const Progress progress = taken->blob ? Progress::decode(*taken->blob) : begin(taken->fd.get());
    if (taken->blob) std::cerr << "roaming: goes on at byte " << progress.written << "\n";
    go_on(std::move(taken->fd), progress);
  } catch (const std::exception& error) {
    std::cerr << "roaming: " << error.what() << "\n";
  }
}

tcpmig::UniqueFd listen_at(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  ::unlink(path);
  tcpmig::UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      ::listen(fd.get(), 64) < 0)
    throw std::system_error(errno, std::generic_category(), path);
  return fd;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << kUsage;
    return 2;
  }
  agent = argv[2];
  other_node = argv[3];
  struct sigaction action{};
  action.sa_handler = [](int) { ++moves_asked; };
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGUSR1, &action, nullptr);
  try {
    const tcpmig::UniqueFd listener = listen_at(argv[1]);
    std::cerr << "roaming: ready\n";
    for (;;) {
      tcpmig::UniqueFd channel(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (channel) std::thread(serve, std::move(channel)).detach();
    }
  } catch (const std::exception& error) {
    std::cerr << "roaming: " << error.what() << "\n";
    return 1;
  }
}
