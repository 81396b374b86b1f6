// SPDX-License-Identifier: MIT
// An echo server that moves its client to another host, while the client is connected; echo.c in C++:
//   c++ -std=c++23 echo.cpp -o echo $(pkg-config --cflags --libs tcpmig-static)
#include <poll.h>
#include <signal.h>

#include <array>

#include <tcpmig/repair_helper.hpp>

#include "moving.hpp"

namespace {

constexpr const char* kUsage =
    "usage: echo serve ADDRESS PORT TARGET TARGET-PORT [COMMAND]\n"
    "       echo adopt ADDRESS PORT [LOCAL-ADDRESS]\n"
    "serve: an echo server. On SIGUSR1 the connection moves to the `echo adopt` that waits at "
    "TARGET. COMMAND is run when that has\n"
    "       resumed it: it shall let the connection's packets go to the new host.\n"
    "adopt: waits for a connection and goes on with it. LOCAL-ADDRESS: this host's own, where a "
    "NAT on the way translates it.\n"
    "Both need CAP_NET_ADMIN (root), or in the environment REPAIR_HELPER=SOCKET of a `tcpmig "
    "repair-helper` that lets them.\n";

volatile sig_atomic_t move_asked = 0;

/// Blocks SIGUSR1 but for where ppoll() is given the mask that this returns.
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

enum class Outcome { kClosed, kMove };

/// Between two reads everything that was read has been written: there is no state but the connection's.
Outcome echo(int fd, const sigset_t& waiting) {
  std::array<std::byte, 65536> bytes;
  for (;;) {
    pollfd readable{.fd = fd, .events = POLLIN, .revents = 0};
    if (move_asked) return Outcome::kMove;
    if (::ppoll(&readable, 1, nullptr, &waiting) < 0) continue;
    const ssize_t count = moving::check("receive", ::recv(fd, bytes.data(), bytes.size(), 0));
    if (count == 0) return Outcome::kClosed;
    moving::send_all(fd, std::span(bytes).first(static_cast<std::size_t>(count)));
  }
}

void serve_client(const tcpmig::FreezeKit& kit, tcpmig::UniqueFd fd, const moving::Target& target,
                  const sigset_t& waiting) {
  std::cerr << "echo: a client\n";
  while (echo(fd.get(), waiting) == Outcome::kMove) {
    move_asked = 0;
    auto kept = moving::move_away(kit, std::move(fd), target, {});
    std::cerr << (kept ? "echo: not moved; the connection goes on here\n" : "echo: moved\n");
    if (!kept) return;
    fd = std::move(*kept);
  }
}

void adopt_client(const tcpmig::FreezeKit& kit, const tcpmig::UniqueFd& source,
                  const std::optional<tcpmig::Endpoint>& local) {
  const moving::Adopted adopted = moving::adopt(kit, source.get(), local);
  std::cerr << "echo: resumed\n";
  sigset_t never;
  ::sigfillset(&never);
  echo(adopted.fd.get(), never);
}

void run(int argc, char** argv) {
  const bool serving = std::string(argv[1]) == "serve";
  if (const char* helper = std::getenv("REPAIR_HELPER")) tcpmig::set_repair_helper(helper);
  const tcpmig::FreezeKit kit({});
  for (const std::string& warning : kit.warnings()) std::cerr << "echo: " << warning << "\n";
  if (!kit.may_repair()) throw std::runtime_error("CAP_NET_ADMIN is needed");
  const sigset_t waiting = hear_of_moves();
  const auto local = moving::local_of(!serving && argc > 4 ? argv[4] : nullptr);
  moving::Target target;
  if (serving) target = {argv[4], argv[5], argc > 6 ? argv[6] : ""};
  const tcpmig::UniqueFd listener = moving::open_socket(argv[2], argv[3], true);
  std::cerr << "echo: ready\n";
  for (;;) {
    tcpmig::UniqueFd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    try {
      if (fd && serving) serve_client(kit, std::move(fd), target, waiting);
      if (fd && !serving) adopt_client(kit, fd, local);
    } catch (const std::exception& error) {
      std::cerr << "echo: " << error.what() << "\n";
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (!(verb == "serve" && (argc == 6 || argc == 7)) &&
      !(verb == "adopt" && (argc == 4 || argc == 5))) {
    std::cerr << kUsage;
    return 2;
  }
  try {
    run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "echo: " << error.what() << "\n";
    return 1;
  }
}
