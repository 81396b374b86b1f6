// SPDX-License-Identifier: MIT
#include "exec/inetd.hpp"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "exec/program_file.hpp"
#include "sys/address.hpp"
#include "sys/check.hpp"
#include "sys/errors.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::exec {
namespace {

constexpr int kBacklog = 4096;

sys::UniqueFd listen_on(int family, std::uint16_t port) {
  sys::UniqueFd fd(
      sys::check("socket", ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
  const int on = 1;
  const int off = 0;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_storage any{};
  any.ss_family = static_cast<sa_family_t>(family);
  socklen_t length = sizeof(sockaddr_in);
  if (family == AF_INET6) {
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    length = sizeof(sockaddr_in6);
  }
  (family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(any).sin6_port
                      : reinterpret_cast<sockaddr_in&>(any).sin_port) = htons(port);
  const std::string what = "listen on port " + std::to_string(port);
  sys::check(what, ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), length));
  sys::check(what, ::listen(fd.get(), kBacklog));
  return fd;
}

sys::UniqueFd listen_on(std::uint16_t port) {
  try {
    return listen_on(AF_INET6, port);
  } catch (const std::system_error& error) {
    if (error.code().value() != EAFNOSUPPORT) throw;
  }
  return listen_on(AF_INET, port);
}

void become_user(const std::string& name) {
  const passwd* user = ::getpwnam(name.c_str());
  if (user == nullptr) throw sys::NotFound("there is no user " + name);
  sys::check("initgroups " + name, ::initgroups(name.c_str(), user->pw_gid));
  sys::check("setgid " + name, ::setgid(user->pw_gid));
  sys::check("setuid " + name, ::setuid(user->pw_uid));
}

sys::Endpoint endpoint_of(int fd, int (*ask)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (ask(fd, reinterpret_cast<sockaddr*>(&storage), &length) < 0) return {};
  return sys::Endpoint::from_sockaddr(storage);
}

void describe(const sys::Endpoint& peer, const sys::Endpoint& local) {
  const auto set = [](const char* name, const std::string& value) {
    ::setenv(name, value.c_str(), 1);
  };
  set("PROTO", "TCP");
  for (const char* name : {"REMOTE_ADDR", "TCPREMOTEIP"}) set(name, peer.address.str());
  for (const char* name : {"REMOTE_PORT", "TCPREMOTEPORT"}) set(name, std::to_string(peer.port));
  for (const char* name : {"SERVER_ADDR", "TCPLOCALIP"}) set(name, local.address.str());
  for (const char* name : {"SERVER_PORT", "TCPLOCALPORT"}) set(name, std::to_string(local.port));
}

class SuperServer {
 public:
  SuperServer(const handover_place& place, const InetdOptions& options)
      : place_(place),
        options_(options),
        program_(find_program(options.command.at(0))),
        listener_(listen_on(options.port)) {
    if (!options.user.empty()) become_user(options.user);
    sigset_t noticed;
    sigemptyset(&noticed);
    for (const int signal : {SIGTERM, SIGINT, SIGCHLD}) sigaddset(&noticed, signal);
    sys::check("sigprocmask", ::sigprocmask(SIG_BLOCK, &noticed, &usual_));
    signals_.reset(sys::check("signalfd", ::signalfd(-1, &noticed, SFD_CLOEXEC | SFD_NONBLOCK)));
    for (const std::string& word : options_.command)
      arguments_.push_back(const_cast<char*>(word.c_str()));
    arguments_.push_back(nullptr);
  }

  int run() {
    spdlog::info("port {}: {} for each connection, {} at most", options_.port, program_.string(),
                 options_.children);
    while (!ended_) {
      const bool room = running_ < options_.children && !pause_;
      std::array<pollfd, 2> events{pollfd{signals_.get(), POLLIN, 0},
                                   pollfd{room ? listener_.get() : -1, POLLIN, 0}};
      const int ready = ::poll(events.data(), events.size(), pause_ ? 100 : -1);
      pause_ = false;
      if (ready < 0) continue;
      if (events[0].revents != 0) take_signals();
      if (events[1].revents != 0) accept_all();
    }
    return 0;
  }

 private:
  void take_signals() {
    signalfd_siginfo signal{};
    while (::read(signals_.get(), &signal, sizeof signal) == sizeof signal)
      ended_ = ended_ || signal.ssi_signo != SIGCHLD;
    while (::waitpid(-1, nullptr, WNOHANG) > 0) --running_;
  }

  void accept_all() {
    while (running_ < options_.children && !pause_) {
      sockaddr_storage peer{};
      socklen_t length = sizeof peer;
      sys::UniqueFd fd(
          ::accept4(listener_.get(), reinterpret_cast<sockaddr*>(&peer), &length, SOCK_CLOEXEC));
      if (!fd && (errno == EAGAIN || errno == EINTR)) return;
      pause_ = !fd && errno != ECONNABORTED;  // no descriptor or memory left
      if (fd && is_for_program(fd.get(), reinterpret_cast<const sockaddr*>(&peer))) start(fd.get());
    }
  }

  [[nodiscard]] bool is_for_program(int fd, const sockaddr* peer) const {
    if (!handover_may_be_ticket(&place_, peer)) return true;
    const int claimed = handover_claim(&place_, fd);
    return claimed == 0 || claimed == -ENOENT;
  }

  void start(int fd) {
    const pid_t child = ::fork();
    if (child < 0) {
      spdlog::warn("cannot start {}: a connection is closed", program_.string());
      pause_ = true;
    }
    if (child > 0) ++running_;
    if (child != 0) return;
    ::sigprocmask(SIG_SETMASK, &usual_, nullptr);
    describe(endpoint_of(fd, ::getpeername), endpoint_of(fd, ::getsockname));
    ::dup2(fd, STDIN_FILENO);
    ::dup2(fd, STDOUT_FILENO);
    ::execv(program_.c_str(), arguments_.data());
    ::dprintf(STDERR_FILENO, "tcpmig exec: cannot run %s: errno %d\n", program_.c_str(), errno);
    ::_exit(127);
  }

  const handover_place& place_;
  const InetdOptions& options_;
  std::filesystem::path program_;
  std::vector<char*> arguments_;
  sys::UniqueFd listener_;
  sys::UniqueFd signals_;
  sigset_t usual_{};
  unsigned running_ = 0;
  bool ended_ = false;
  bool pause_ = false;
};

}  // namespace

int serve_inetd(const handover_place& place, const InetdOptions& options) {
  return SuperServer(place, options).run();
}

}  // namespace tcpmig::exec
