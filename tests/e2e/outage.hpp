// SPDX-License-Identifier: MIT
#pragma once
#include <signal.h>

#include <nlohmann/json.hpp>

#include "e2e/support.hpp"

/// What a test does to processes and links, and gives back.
namespace tcpmig::e2e {

lab::ProcessId process_of(const TestLab& lab, const std::string& node);
/// SIGKILL; returns when it has ended.
void kill_process(const lab::ProcessId& process);
void kill_role(const TestLab& lab, const std::string& node);
/// SIGTERM; returns when it has ended.
void end_role(const TestLab& lab, const std::string& node, std::chrono::seconds limit = 30s);

/// A role that stands still, from the moment that this is made.
class StoppedRole {
 public:
  StoppedRole(const TestLab& lab, const std::string& node);
  ~StoppedRole() { go_on(); }
  StoppedRole(const StoppedRole&) = delete;
  StoppedRole& operator=(const StoppedRole&) = delete;
  void go_on();
  /// For good.
  void kill();

 private:
  lab::ProcessId process_;
  bool stopped_ = true;
};

/// What a dispatcher sends of transfers is lost; its heartbeats, from the control port, are not.
class LostTransfers {
 public:
  LostTransfers(const TestLab& lab, const std::string& node);
  ~LostTransfers();
  LostTransfers(const LostTransfers&) = delete;
  LostTransfers& operator=(const LostTransfers&) = delete;
  void end();

 private:
  void rules(const std::string& verb);
  const TestLab& lab_;
  std::string node_;
  bool lost_ = true;
};

/// `ip ARGUMENTS` in a node; it has to succeed.
void ip(const TestLab& lab, const std::string& node, const std::string& arguments);

/// Sockets of a node whose peer is this client, in whatever state but TIME_WAIT.
std::size_t sockets_of(const TestLab& lab, const std::string& node, const sys::Endpoint& client);

/// As role_status() and role_number(), of a role that has more to do than answer within a second, or is just coming back.
nlohmann::json status_of(const TestLab& lab, const std::string& node);
std::uint64_t number_of(const TestLab& lab, const std::string& node, const std::string& name);
/// A number of the dispatcher's status; 0 where it does not show it.
std::uint64_t of_dispatcher(const TestLab& lab, const std::string& name,
                            const std::string& node = "dispatcher1");
/// Of its own answers, those with this status.
std::uint64_t own_answers(const TestLab& lab, const std::string& status,
                          const std::string& node = "dispatcher1");

std::string post(const std::string& path, const std::string& body, const std::string& more = {});
/// Header fields with which a request takes several datagrams; no line longer than servers take.
std::string long_head();

}  // namespace tcpmig::e2e
