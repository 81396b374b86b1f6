// SPDX-License-Identifier: MIT
#include "helper_bench.hpp"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <stdexcept>

#include "sys/check.hpp"

namespace helper_test {

using namespace conn_test;
using tcpmig::sys::check;

Scratch::Scratch() {
  char name[] = "/tmp/tmt-helper-XXXXXX";
  if (::mkdtemp(name) == nullptr) check("mkdtemp", -1);
  folder_ = name;
  check("chmod", ::chmod(name, 0755));
}

Scratch::~Scratch() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

namespace {

[[noreturn]] void run_program(const Namespace& where, std::vector<std::string> arguments) {
  const char* program = std::getenv("TCPMIG_BIN");
  if (program == nullptr || ::setns(where.fd(), CLONE_NEWNET) < 0) ::_exit(125);
  arguments.insert(arguments.begin(), {program, "repair-helper"});
  std::vector<char*> words;
  for (std::string& word : arguments) words.push_back(word.data());
  words.push_back(nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::execv(program, words.data());
  ::_exit(126);
}

int wait_for(pid_t pid) {
  int status = 0;
  check("waitpid", ::waitpid(pid, &status, 0));
  return status;
}

}  // namespace

Helper::Helper(const Namespace& where, std::string path, const std::vector<std::string>& arguments)
    : where_(where), path_(std::move(path)), arguments_(arguments) {
  arguments_.insert(arguments_.end(), {"--socket", path_});
  start();
}

Helper::~Helper() {
  if (pid_ > 0) end_by(SIGKILL);
}

void Helper::start() {
  pid_ = check("fork", ::fork());
  if (pid_ == 0) run_program(where_, arguments_);
  wait_until("the helper listens", [&] {
    if (::waitpid(pid_, nullptr, WNOHANG) == pid_) throw std::runtime_error("the helper has ended");
    return static_cast<bool>(connect_to(path_));
  });
}

void Helper::start_again() {
  if (pid_ > 0) end_by(SIGKILL);
  start();
}

int Helper::end_by(int signal) {
  ::kill(pid_, signal);
  return wait_for(std::exchange(pid_, -1));
}

Ended run_helper(const Namespace& where, const std::vector<std::string>& arguments) {
  int pipe[2];
  check("pipe", ::pipe2(pipe, O_CLOEXEC));
  const UniqueFd out(pipe[0]);
  UniqueFd in(pipe[1]);
  const pid_t pid = check("fork", ::fork());
  if (pid == 0) {
    ::dup2(in.get(), STDERR_FILENO);
    run_program(where, arguments);
  }
  in.reset();
  Ended ended;
  char buffer[1024];
  for (ssize_t got; (got = ::read(out.get(), buffer, sizeof buffer)) > 0;)
    ended.said.append(buffer, static_cast<std::size_t>(got));
  ended.code = WEXITSTATUS(wait_for(pid));
  return ended;
}

Nobody::Nobody(const Namespace& where, const std::function<void(int)>& body) {
  int ends[2];
  check("socketpair", ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
  channel_.reset(ends[0]);
  const UniqueFd other(ends[1]);
  pid_ = check("fork", ::fork());
  if (pid_ != 0) return;
  channel_.reset();
  try {
    check("setns", ::setns(where.fd(), CLONE_NEWNET));
    std::ofstream("/proc/sys/net/ipv4/ip_unprivileged_port_start") << 0;  // the service's is 80
    check("setgroups", ::setgroups(0, nullptr));
    check("setresgid", ::setresgid(kNobody, kNobody, kNobody));
    check("setresuid", ::setresuid(kNobody, kNobody, kNobody));  // every capability goes with it
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    body(other.get());
    ::_exit(0);
  } catch (const std::exception& error) {
    std::cerr << "nobody: " << error.what() << std::endl;
  }
  ::_exit(1);
}

Nobody::~Nobody() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  wait();
}

int Nobody::wait() { return WEXITSTATUS(wait_for(std::exchange(pid_, -1))); }

void send_bytes(int channel, const Bytes& bytes) {
  const std::uint64_t size = bytes.size();
  send_all(channel, std::as_bytes(std::span(&size, 1)));
  send_all(channel, bytes);
}

Bytes receive_bytes(int channel) {
  std::uint64_t size = 0;
  std::memcpy(&size, receive_exactly(channel, sizeof size).data(), sizeof size);
  return receive_exactly(channel, size);
}

void say(int channel, char word) { send_all(channel, std::as_bytes(std::span(&word, 1))); }
char hear(int channel) { return static_cast<char>(receive_exactly(channel, 1)[0]); }

UniqueFd connect_to(const std::string& path) {
  UniqueFd fd(check("socket", ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    return {};
  return fd;
}

int ask(const std::string& path, std::span<const std::byte> bytes, const std::vector<int>& fds) {
  const UniqueFd helper = connect_to(path);
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))]{};
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
  }
  ::sendmsg(helper.get(), &message, MSG_NOSIGNAL);
  std::int32_t error = 0;
  ssize_t got = ::recv(helper.get(), &error, sizeof error, 0);
  if (got < 0) got = ::recv(helper.get(), &error, sizeof error, 0);
  return got == sizeof error ? error : -1;
}

}  // namespace helper_test
