// SPDX-License-Identifier: MIT
// A server that sends a long stream, and moves to another host in the middle of it, whatever the kernel has still to send:
//   c++ -std=c++23 stream.cpp -o stream $(pkg-config --cflags --libs tcpmig-static)
// What the kernel knows of the connection is in the snapshot. What the application knows (how far it has come) goes with it.
#include <endian.h>
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <array>

#include "moving.hpp"

namespace {

constexpr const char* kUsage =
    "usage: stream serve ADDRESS PORT MEGABYTES TARGET TARGET-PORT [COMMAND]\n"
    "       stream adopt ADDRESS PORT [LOCAL-ADDRESS]\n"
    "serve: sends MEGABYTES to each client: byte i is (i * 2654435761) >> 24, modulo 256. On "
    "SIGUSR1 the connection moves to the\n"
    "       `stream adopt` that waits at TARGET. COMMAND is run when that has resumed it: it shall "
    "let the connection's packets go to\n"
    "       the new host.\n"
    "adopt: waits for a connection and goes on with it. LOCAL-ADDRESS: this host's own, where a "
    "NAT on the way translates it.\n"
    "Both need CAP_NET_ADMIN (root).\n";

volatile sig_atomic_t move_asked = 0;

sigset_t hear_of_moves() {
  struct sigaction action{};
  action.sa_handler = [](int) { move_asked = 1; };
  ::sigaction(SIGUSR1, &action, nullptr);
  sigset_t usr1, waiting;
  ::sigemptyset(&usr1);
  ::sigaddset(&usr1, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &usr1, &waiting);
  ::sigdelset(&waiting, SIGUSR1);
  return waiting;
}

/// All that the application knows of a client.
struct Progress {
  std::uint64_t written = 0;  ///< bytes that the kernel has taken
  std::uint64_t total = 0;

  [[nodiscard]] moving::Bytes encode() const {
    const std::uint64_t numbers[]{htobe64(written), htobe64(total)};
    const auto bytes = std::as_bytes(std::span(numbers));
    return {bytes.begin(), bytes.end()};
  }
  static Progress decode(const moving::Bytes& bytes) {
    std::uint64_t numbers[2];
    if (bytes.size() != sizeof numbers) throw std::runtime_error("not the state of a stream");
    std::memcpy(numbers, bytes.data(), sizeof numbers);
    return {be64toh(numbers[0]), be64toh(numbers[1])};
  }
};

std::byte byte_at(std::uint64_t i) { return static_cast<std::byte>(i / 8 >> (56 - i % 8 * 8)); }

enum class Outcome { kSent, kMove };

/// The socket does not block, so that `written` is right whenever a move is asked for.
Outcome stream(int fd, Progress& progress, const sigset_t& waiting) {
  std::array<std::byte, 65536> chunk;
  while (progress.written < progress.total) {
    pollfd writable{.fd = fd, .events = POLLOUT, .revents = 0};
    if (move_asked) return Outcome::kMove;
    if (::ppoll(&writable, 1, nullptr, &waiting) < 0) continue;
    const auto size = std::min<std::uint64_t>(chunk.size(), progress.total - progress.written);
    for (std::size_t i = 0; i < size; ++i) chunk[i] = byte_at(progress.written + i);
    const ssize_t count = ::send(fd, chunk.data(), size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno != EAGAIN) moving::check("send", -1);
    if (count > 0) progress.written += static_cast<std::uint64_t>(count);
  }
  return Outcome::kSent;
}

/// Closes when the client has: what is on its way arrives.
void finish(int fd) {
  ::shutdown(fd, SHUT_WR);
  moving::limit_waiting(fd);
  std::byte ignored[4096];
  while (::recv(fd, ignored, sizeof ignored, 0) > 0) continue;
}

void serve_client(const tcpmig::FreezeKit& kit, tcpmig::UniqueFd fd, Progress progress,
                  const moving::Target& target, const sigset_t& waiting) {
  std::cerr << "stream: a client\n";
  while (stream(fd.get(), progress, waiting) == Outcome::kMove) {
    move_asked = 0;
    auto kept = moving::move_away(kit, std::move(fd), target, progress.encode());
    std::cerr << (kept ? "stream: not moved; the connection goes on here\n" : "stream: moved\n");
    if (!kept) return;
    fd = std::move(*kept);
  }
  finish(fd.get());
}

void adopt_client(const tcpmig::FreezeKit& kit, const tcpmig::UniqueFd& source,
                  const std::optional<tcpmig::Endpoint>& local) {
  const moving::Adopted adopted = moving::adopt(kit, source.get(), local);
  Progress progress = Progress::decode(adopted.state);
  std::cerr << "stream: resumed at byte " << progress.written << " of " << progress.total << "\n";
  sigset_t never;
  ::sigfillset(&never);
  stream(adopted.fd.get(), progress, never);
  finish(adopted.fd.get());
}

void run(int argc, char** argv) {
  const bool serving = std::string(argv[1]) == "serve";
  const tcpmig::FreezeKit kit({});
  for (const std::string& warning : kit.warnings()) std::cerr << "stream: " << warning << "\n";
  if (!kit.may_repair()) throw std::runtime_error("CAP_NET_ADMIN is needed");
  const sigset_t waiting = hear_of_moves();
  const auto local = moving::local_of(!serving && argc > 4 ? argv[4] : nullptr);
  Progress whole;
  moving::Target target;
  if (serving) {
    whole.total = std::stoull(argv[4]) << 20;
    target = {argv[5], argv[6], argc > 7 ? argv[7] : ""};
  }
  const tcpmig::UniqueFd listener = moving::open_socket(argv[2], argv[3], true);
  std::cerr << "stream: ready\n";
  for (;;) {
    tcpmig::UniqueFd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    try {
      if (fd && serving) serve_client(kit, std::move(fd), whole, target, waiting);
      if (fd && !serving) adopt_client(kit, fd, local);
    } catch (const std::exception& error) {
      std::cerr << "stream: " << error.what() << "\n";
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (!(verb == "serve" && (argc == 7 || argc == 8)) &&
      !(verb == "adopt" && (argc == 4 || argc == 5))) {
    std::cerr << kUsage;
    return 2;
  }
  try {
    run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "stream: " << error.what() << "\n";
    return 1;
  }
}
