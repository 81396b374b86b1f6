// SPDX-License-Identifier: MIT
#include "manual/take_out.hpp"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <string>
#include <utility>

#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>

#include "conn/placeholder.hpp"
#include "conn/socket_option.hpp"
#include "manual/hold.hpp"
#include "manual/keeper.hpp"
#include "manual/snapshot_file.hpp"
#include "sys/check.hpp"
#include "sys/errors.hpp"
#include "sys/foreign_descriptor.hpp"
#include "sys/netns.hpp"
#include "sys/process_stop.hpp"

namespace tcpmig::manual {
namespace {

using Clock = std::chrono::steady_clock;

int socket_number(int fd, int name) {
  return conn::get_option<int>(fd, SOL_SOCKET, name, "getsockopt of SOL_SOCKET");
}

/// What the library would refuse with less to say about it. (MPTCP has TCP's name here, and is refused by it.)
void refuse_what_is_no_connection(int fd, const TakeOut& wanted) {
  const std::string what =
      "descriptor " + std::to_string(wanted.fd) + " of process " + std::to_string(wanted.process);
  int protocol = 0;
  socklen_t length = sizeof(protocol);
  if (::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) < 0) {
    if (errno == ENOTSOCK || errno == EBADF) throw sys::WrongSetup(what + " is not a socket");
    sys::check("getsockopt SO_PROTOCOL", -1);
  }
  const int family = socket_number(fd, SO_DOMAIN);
  if ((family != AF_INET && family != AF_INET6) || socket_number(fd, SO_TYPE) != SOCK_STREAM ||
      (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP))
    throw sys::WrongSetup(what + " is not a TCP socket");
  if (protocol == IPPROTO_MPTCP) throw Unsupported("the connection is MPTCP");
  if (socket_number(fd, SO_ACCEPTCONN) != 0)
    throw sys::WrongSetup(what +
                          " is a listener: name the descriptor of one connection (`ss -tnp` "
                          "shows them)");
}

conn::Endpoints ends_of(int fd) {
  try {
    return conn::dump_endpoints(fd);
  } catch (const std::system_error& error) {
    if (error.code().value() != ENOTCONN) throw;
    throw Unsupported("the socket is not connected");
  }
}

sys::UniqueFd netns_of(int fd) {
  return sys::UniqueFd(
      sys::check("open the network namespace of the socket (SIOCGSKNS)", ::ioctl(fd, SIOCGSKNS)));
}

constexpr int kRounds = 8;

/// One connection on its way out of its process. Members in the order of what is to be undone.
class Taking {
 public:
  Taking(const TakeOut& wanted, sys::UniqueFd socket)
      : wanted_(wanted),
        socket_(std::move(socket)),
        ends_(ends_of(socket_.get())),
        processes_(sys::processes_with_socket(sys::inode_of(socket_.get()))),
        file_(wanted.file, wanted.replace),
        inside_(netns_of(socket_.get()).get()),
        kit_({.use_dump_program = false, .cgroup_name = "", .keep_window_small = false}),
        meeting_point_(holds() ? open_meeting_point(ends_) : sys::UniqueFd()),
        reuse_(socket_number(socket_.get(), SO_REUSEADDR)),
        keeper_(socket_.get(), file_, meeting_point_ ? meeting_point_.get() : -1, wanted.hold) {
    if (!kit_.may_repair())
      throw sys::MissingFeature(
          "TCP_REPAIR is not permitted: it takes root, or CAP_NET_ADMIN (`tcpmig doctor` says "
          "more)");
  }

  TakenOut run();

 private:
  [[nodiscard]] bool holds() const { return !wanted_.look_only && wanted_.hold.count() > 0; }
  void stop_all(std::deque<sys::ProcessStop>& stopped);
  Frozen freeze();
  void give_back(Frozen frozen);
  void end(Frozen frozen, bool mapped);

  const TakeOut& wanted_;
  sys::UniqueFd socket_;
  conn::Endpoints ends_;
  std::vector<pid_t> processes_;  // before there is a keeper
  SnapshotFile file_;
  sys::EnterNetns inside_;
  FreezeKit kit_;
  sys::UniqueFd meeting_point_;
  int reuse_;
  Keeper keeper_;
};

Frozen Taking::freeze() {
  sys::UniqueFd copy(sys::check("dup", ::fcntl(socket_.get(), F_DUPFD_CLOEXEC, 3)));
  auto frozen = try_freeze(std::move(copy), {}, kit_, Scope::kWhole);
  if (!frozen) throw Unsupported("this connection cannot be frozen: " + frozen.error().reason);
  return std::move(*frozen);
}

/// What has come meanwhile goes to the socket that it was for; where that cannot be done the peer sends it again.
void Taking::give_back(Frozen frozen) {
  std::vector<CapturedSegment> captured;
  kit_.consume_captures([&](CapturedSegment segment) { captured.push_back(std::move(segment)); });
  Deliver deliver = [](std::span<const std::byte>) {};
  try {
    const Deliver raw = raw_delivery(ends_.local);
    deliver = [raw](std::span<const std::byte> packet) {
      try {
        raw(packet);
      } catch (const std::system_error&) {
      }
    };
  } catch (const std::system_error&) {  // without CAP_NET_RAW
  }
  frozen.thaw(captured, deliver);
}

/// The point of no return is disconnect_silently(). Until then the old socket is only bound to an interface, for as long as the placeholder needs to
/// be made, so that no packet finds neither of the two.
void Taking::end(Frozen frozen, bool mapped) {
  const int fd = socket_.get();
  sys::UniqueFd placeholder;
  std::optional<int> bound;
  try {
    if (holds()) {
      bound = conn::step_aside(fd, ends_.peer);
      placeholder = conn::open_placeholder(ends_, mapped);
      keeper_.give_placeholder(placeholder.get());
    }
    file_.publish();
    conn::disconnect_silently(fd);
  } catch (...) {
    placeholder.reset();
    if (bound) conn::step_back(fd, *bound);
    throw;
  }
  file_.keep();
  frozen.commit();
  conn::release(fd, reuse_);
  if (bound) conn::step_back(fd, *bound);
}

/// Until all that have the socket stand still: one may have been forked since they were counted.
void Taking::stop_all(std::deque<sys::ProcessStop>& stopped) {
  std::vector<pid_t> running = processes_;
  for (int round = 0; round < kRounds; ++round) {
    stopped.emplace_back(running);
    running = sys::processes_with_socket(sys::inode_of(socket_.get()));
    std::erase_if(running, [this](pid_t process) {
      return process == keeper_.process() ||
             std::ranges::find(processes_, process) != processes_.end();
    });
    if (running.empty()) return;
    processes_.insert(processes_.end(), running.begin(), running.end());
  }
  throw Unsupported("new processes keep getting the socket: stop who makes them");
}

TakenOut Taking::run() {
  TakenOut result;
  const auto begin = Clock::now();
  {
    std::deque<sys::ProcessStop> stopped;
    stop_all(stopped);
    result.processes = processes_;
    Frozen frozen = freeze();
    result.snapshot = frozen.snapshot();
    file_.write(result.snapshot);
    if (wanted_.look_only)
      give_back(std::move(frozen));
    else
      end(std::move(frozen), result.snapshot.mapped);
  }
  result.stopped = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin);
  if (wanted_.look_only) {
    file_.publish();
    file_.keep();
  } else {
    result.holder = keeper_.committed();
  }
  return result;
}

}  // namespace

TakenOut take_out(const TakeOut& wanted) {
  sys::UniqueFd socket = sys::copy_descriptor(wanted.process, wanted.fd);
  refuse_what_is_no_connection(socket.get(), wanted);
  return Taking(wanted, std::move(socket)).run();
}

}  // namespace tcpmig::manual
