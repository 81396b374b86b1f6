// SPDX-License-Identifier: MIT
#include "conn/repair_helper.hpp"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <array>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#include <tcpmig/repair_helper.hpp>

#include "sys/check.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig {
namespace {

std::mutex path_mutex;
std::string helper_path;

std::string path_now() {
  const std::lock_guard guard(path_mutex);
  return helper_path;
}

}  // namespace

void set_repair_helper(const std::string& path) {
  if (path.size() >= sizeof(sockaddr_un::sun_path) || path.find('\0') != std::string::npos)
    throw std::invalid_argument("set_repair_helper: not a path of at most 107 bytes");
  const std::lock_guard guard(path_mutex);
  helper_path = path;
}

namespace conn {
namespace {

/// So long a helper that has accepted the question may take.
constexpr timeval kAnswerLimit{.tv_sec = 2, .tv_usec = 0};
constexpr std::chrono::milliseconds kPause{10};

/// A connection to the helper; none with errno.
sys::UniqueFd connect_to(const std::string& path) {
  sys::UniqueFd fd(sys::check("socket", ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kAnswerLimit, sizeof kAnswerLimit);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kAnswerLimit, sizeof kAnswerLimit);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    return {};
  return fd;
}

bool send_request(int helper, const RepairRequest& request, int fd) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  iovec part{const_cast<RepairRequest*>(&request), sizeof request};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  return ::sendmsg(helper, &message, MSG_NOSIGNAL) >= 0;
}

/// What the helper says, or the errno by which it could not be asked.
struct Answer {
  int error = 0;
  bool is_helpers = false;
};

Answer ask_once(const std::string& path, const RepairRequest& request, int fd) {
  const sys::UniqueFd helper = connect_to(path);
  if (!helper) return {errno};
  // One that refuses the asker has answered and closed before it was asked.
  if (!send_request(helper.get(), request, fd) && errno != EPIPE) return {errno};
  std::int32_t error = 0;
  ssize_t got = ::recv(helper.get(), &error, sizeof error, 0);
  // The kernel tells of the end first, of what was said before it then (net/core/datagram.c).
  if (got < 0 && errno == ECONNRESET) got = ::recv(helper.get(), &error, sizeof error, 0);
  if (got < 0) return {errno == EAGAIN ? ETIMEDOUT : errno};
  if (got != sizeof error) return {got == 0 ? ECONNRESET : EPROTO};
  return {error, true};
}

/// It is being started again, or has no time for us.
bool may_pass(const Answer& answer) {
  if (answer.is_helpers) return answer.error == EBUSY;
  return answer.error == ECONNREFUSED || answer.error == ENOENT || answer.error == ECONNRESET ||
         answer.error == EAGAIN;
}

}  // namespace

bool has_repair_helper() { return !path_now().empty(); }

void ask_helper(const RepairRequest& request, int fd, const char* what,
                std::chrono::milliseconds patience) {
  const std::string path = path_now();
  if (path.empty()) throw std::system_error(EPERM, std::generic_category(), what);
  const auto deadline = std::chrono::steady_clock::now() + patience;
  Answer answer = ask_once(path, request, fd);
  while (may_pass(answer) && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kPause);
    answer = ask_once(path, request, fd);
  }
  if (answer.is_helpers && answer.error == 0) return;
  throw std::system_error(answer.error, std::generic_category(),
                          std::string(what) + (answer.is_helpers ? " by" : ": cannot ask") +
                              " the repair helper at " + path);
}

void set_privileged(int fd, int name, int value, RepairOperation operation, const char* what) {
  if (::setsockopt(fd, SOL_SOCKET, name, &value, sizeof value) == 0) return;
  if (errno != EPERM) sys::check(what, -1);
  int present = 0;
  socklen_t length = sizeof present;
  if (::getsockopt(fd, SOL_SOCKET, name, &present, &length) == 0 && present == value) return;
  ask_helper({.operation = operation, .value = static_cast<std::uint32_t>(value)}, fd, what);
}

}  // namespace conn
}  // namespace tcpmig
