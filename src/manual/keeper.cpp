// SPDX-License-Identifier: MIT
#include "manual/keeper.hpp"

#include <fcntl.h>
#include <linux/bpf.h>  // the TCP states
#include <linux/tcp.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include <tcpmig/resume.hpp>

#include "conn/placeholder.hpp"
#include "conn/silent_visit.hpp"
#include "conn/socket_option.hpp"
#include "manual/hold.hpp"
#include "sys/check.hpp"

namespace tcpmig::manual {
namespace {

struct Charge {
  int control = -1, socket = -1, meeting_point = -1;
  int reuse = 0, bound = 0;  ///< of the socket, as its application has them
  conn::VoiceKept voice;
  std::chrono::seconds hold{};
  SnapshotFile* file = nullptr;
};

/// What ends the freezer by its terminal must not end the keeper, nor before it has left that: between fork() and here they are held back.
class HeldBack {
 public:
  HeldBack() {
    ::sigset_t signals;
    ::sigemptyset(&signals);
    for (const int signal : kSignals) ::sigaddset(&signals, signal);
    ::sigprocmask(SIG_BLOCK, &signals, &before_);
  }
  ~HeldBack() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
  HeldBack(const HeldBack&) = delete;
  HeldBack& operator=(const HeldBack&) = delete;
  /// Those that have come are for the other process.
  static void forget() {
    for (const int signal : kSignals) {
      ::signal(signal, SIG_IGN);
      ::signal(signal, SIG_DFL);
    }
  }

 private:
  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP, SIGQUIT};
  ::sigset_t before_{};
};

/// Whoever waits for the end of our output must not wait for the keeper.
void leave_terminal() {
  ::setsid();
  HeldBack::forget();
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int fd : {0, 1, 2}) ::dup2(null, fd);
  ::close(null);
  if (::chdir("/") < 0) return;  // it keeps no file system busy where it can
}

void close_all_but(std::array<int, 3> wanted) {
  std::ranges::sort(wanted);
  unsigned from = 3;
  for (const int fd : wanted) {
    if (fd < 3) continue;
    if (static_cast<unsigned>(fd) > from) ::close_range(from, static_cast<unsigned>(fd) - 1, 0);
    from = static_cast<unsigned>(fd) + 1;
  }
  ::close_range(from, ~0U, 0);
}

bool is_closed(int socket) {
  const auto info =
      conn::get_option<::tcp_info>(socket, IPPROTO_TCP, TCP_INFO, "getsockopt TCP_INFO");
  return info.tcpi_state == BPF_TCP_CLOSE;
}

/// Until the freezer says that it is done, or has died; the placeholder, if it has come by then.
sys::UniqueFd wait_for_end(const Charge& charge) {
  auto received = receive_descriptor(charge.control);
  if (!received) return {};
  char word = 0;
  while (::read(charge.control, &word, 1) < 0 && errno == EINTR) {
  }
  return std::move(received->first);
}

/// What counts is what the socket says, whichever step we were told of last.
void keep(const Charge& charge) {
  const sys::UniqueFd placeholder = wait_for_end(charge);
  const bool moved = is_closed(charge.socket);
  if (!moved) charge.voice.put_back(charge.socket);
  conn::release(charge.socket, charge.reuse);
  if (!moved) conn::send_what_waits(charge.socket);
  conn::step_back(charge.socket, charge.bound);
  if (moved)
    charge.file->keep();
  else
    charge.file->undo();
  ::close(charge.socket);
  if (moved && placeholder && charge.meeting_point >= 0)
    hold(charge.meeting_point, placeholder.get(), std::chrono::steady_clock::now() + charge.hold);
}

[[noreturn]] void run_keeper(const Charge& charge, std::optional<HeldBack>& held_back) {
  int code = 0;
  try {
    leave_terminal();
    held_back.reset();
    close_all_but({charge.control, charge.socket, charge.meeting_point});
    keep(charge);
  } catch (...) {
    code = 1;
  }
  ::_exit(code);
}

}  // namespace

Keeper::Keeper(int socket, SnapshotFile& file, int meeting_point, std::chrono::seconds hold) {
  Charge charge{.socket = socket,
                .meeting_point = meeting_point,
                .voice = conn::VoiceKept(socket),
                .hold = hold,
                .file = &file};
  charge.reuse = conn::get_option<int>(socket, SOL_SOCKET, SO_REUSEADDR, "getsockopt SO_REUSEADDR");
  charge.bound =
      conn::get_option<int>(socket, SOL_SOCKET, SO_BINDTOIFINDEX, "getsockopt SO_BINDTOIFINDEX");
  std::array<int, 2> ends{};
  sys::check("socketpair", ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()));
  control_.reset(ends[0]);
  const sys::UniqueFd theirs(ends[1]);
  charge.control = ends[1];
  std::optional<HeldBack> held_back(std::in_place);
  process_ = sys::check("fork", ::fork());
  if (process_ == 0) run_keeper(charge, held_back);
}

Keeper::~Keeper() {
  if (process_ == 0) return;
  ::kill(process_, SIGKILL);
  ::waitpid(process_, nullptr, 0);
}

void Keeper::give_placeholder(int placeholder) {
  send_descriptor(control_.get(), placeholder, "");
  has_placeholder_ = true;
}

pid_t Keeper::committed() noexcept {
  if (!has_placeholder_) return 0;  // the destructor ends it
  const char word = 'c';
  [[maybe_unused]] const auto sent = ::send(control_.get(), &word, 1, MSG_NOSIGNAL);
  return std::exchange(process_, 0);
}

}  // namespace tcpmig::manual
