// SPDX-License-Identifier: MIT
#include "e2e/outage.hpp"

#include <linux/bpf.h>  // the TCP states

#include <sstream>

#include "catch.hpp"
#include "sys/netns.hpp"
#include "sys/sock_diag.hpp"

namespace tcpmig::e2e {

lab::ProcessId process_of(const TestLab& lab, const std::string& node) {
  return lab::identify(status_of(lab, node).at("pid").get<pid_t>()).value();
}

void kill_process(const lab::ProcessId& process) {
  ::kill(process.pid, SIGKILL);
  REQUIRE(lab::wait_until(5s, [&] {
    lab::poll_exit(process.pid);
    return !lab::is_alive(process);
  }));
}

void kill_role(const TestLab& lab, const std::string& node) { kill_process(process_of(lab, node)); }

void end_role(const TestLab& lab, const std::string& node, std::chrono::seconds limit) {
  const auto process = process_of(lab, node);
  ::kill(process.pid, SIGTERM);
  REQUIRE(lab::wait_until(limit, [&] {
    lab::poll_exit(process.pid);
    return !lab::is_alive(process);
  }));
}

/// SIGSTOP takes effect when the last thread of the process has seen it.
StoppedRole::StoppedRole(const TestLab& lab, const std::string& node)
    : process_(process_of(lab, node)) {
  REQUIRE(::kill(process_.pid, SIGSTOP) == 0);
  const std::filesystem::directory_iterator threads("/proc/" + std::to_string(process_.pid) +
                                                    "/task");
  for (const auto& thread : threads)
    REQUIRE(lab::wait_until(
        5s, [&] { return read_file(thread.path() / "stat").find(") T ") != std::string::npos; }));
}

void StoppedRole::go_on() {
  if (std::exchange(stopped_, false)) ::kill(process_.pid, SIGCONT);
}

void StoppedRole::kill() {
  kill_process(process_);
  stopped_ = false;
}

LostTransfers::LostTransfers(const TestLab& lab, const std::string& node) : lab_(lab), node_(node) {
  rules("add");
}

LostTransfers::~LostTransfers() { end(); }

void LostTransfers::end() {
  if (std::exchange(lost_, false)) rules("del");
}

void LostTransfers::rules(const std::string& verb) {
  for (const std::string family : {"-4", "-6"})
    ip(lab_, node_,
       family + " rule " + verb + " pref 1 ipproto udp dport 7420 sport 10000-65534 blackhole");
}

void ip(const TestLab& lab, const std::string& node, const std::string& arguments) {
  std::vector<std::string> command{"ip"};
  std::istringstream words(arguments);
  for (std::string word; words >> word;) command.push_back(word);
  const Output output = run_in(*lab, node, command);
  INFO("ip " << arguments << ": " << output.error);
  CHECK(output.code == 0);
}

std::size_t sockets_of(const TestLab& lab, const std::string& node, const sys::Endpoint& client) {
  const sys::EnterNetns inside(lab.netns(node));
  sys::SockDiag diag;
  constexpr std::uint32_t kNone = 1U << BPF_TCP_LISTEN | 1U << BPF_TCP_TIME_WAIT;
  std::size_t count = 0;
  const bool whole = diag.for_each(~kNone, [&](const sys::SocketInfo& socket) {
    if (socket.peer == client) ++count;
  });
  return whole ? count : count + 1;  // ask again
}

nlohmann::json status_of(const TestLab& lab, const std::string& node) {
  nlohmann::json status;
  std::string why;
  const auto ask = [&] {
    try {
      status = lab::role_status(*lab, node);
      return true;
    } catch (const std::runtime_error& error) {
      why = error.what();
      return false;
    }
  };
  if (!lab::wait_until(20s, ask)) throw std::runtime_error(why);
  return status;
}

std::uint64_t number_of(const TestLab& lab, const std::string& node, const std::string& name) {
  const nlohmann::json status = status_of(lab, node);
  const auto found = lab::find_number(status, name);
  if (!found) throw std::runtime_error("the status of " + node + " has no number " + name);
  return *found;
}

std::uint64_t of_dispatcher(const TestLab& lab, const std::string& name, const std::string& node) {
  return lab::find_number(status_of(lab, node), name).value_or(0);
}

std::uint64_t own_answers(const TestLab& lab, const std::string& status, const std::string& node) {
  return status_of(lab, node).at("answers").value(status, std::uint64_t{0});
}

std::string post(const std::string& path, const std::string& body, const std::string& more) {
  return "POST " + path + " HTTP/1.1\r\nHost: lab.example\r\n" + more +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

std::string long_head() {
  std::string head;
  for (const char* name : {"X-A: ", "X-B: ", "X-C: "})
    head += name + std::string(4'000, 'x') + "\r\n";
  return head;
}

}  // namespace tcpmig::e2e
