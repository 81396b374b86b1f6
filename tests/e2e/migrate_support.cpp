// SPDX-License-Identifier: MIT
#include "e2e/migrate_support.hpp"

#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cstring>

#include "e2e/exec_support.hpp"
#include "lab/generate.hpp"

namespace tcpmig::e2e {

RoamingLab::RoamingLab(lab::Options options, unsigned plain) {
  std::string config = lab::web_service();
  std::string own;
  std::string pools = "[[pool]]\nname = \"all\"\nservers = [";
  for (unsigned i = 1; i <= options.servers; ++i) {
    const bool takes = i + plain <= options.servers;
    const std::string server = "{ node = \"server" + std::to_string(i) + "\"" +
                               (takes ? ", handoff = \"" + socket(i) + "\"" : "") + " },";
    config += "[[service.route]]\nprefix = \"/" + std::to_string(i) + "/\"\npool = \"" +
              std::to_string(i) + "\"\n";
    pools += server;
    own += "[[pool]]\nname = \"" + std::to_string(i) + "\"\nservers = [" + server + "]\n";
  }
  config += "[[service.route]]\nprefix = \"/\"\npool = \"all\"\n" + pools + "]\n" + own;
  const unsigned programs = options.servers - plain;
  lab_ = std::make_unique<TestLab>(std::move(options), config);
  for (unsigned i = 1; i <= programs; ++i) start(i);
}

RoamingLab::~RoamingLab() {
  for (const auto& [number, pid] : std::map(programs_)) stop(number, SIGKILL);
}

std::string RoamingLab::socket(unsigned number) const {
  return (directory_.path() / (std::to_string(number) + ".sock")).string();
}

HttpClient RoamingLab::ask(const std::string& path, bool ipv6) {
  HttpClient client(lab_->netns("client1"), vip(ipv6));
  client.send(get(path));
  return client;
}

std::string RoamingLab::agent(unsigned number) const {
  return (*lab_)->config().paths("server" + std::to_string(number)).handover_socket().string();
}

void RoamingLab::start(unsigned number) {
  const std::string node = "server" + std::to_string(number);
  std::filesystem::remove(socket(number));
  programs_[number] =
      (*lab_)->spawn(node, {program_file("roaming"), socket(number), agent(number), node},
                     lab_->directory() / (node + ".out"));
  if (!lab::wait_until(20s, [&] { return std::filesystem::exists(socket(number)); }))
    throw std::runtime_error("the program of " + node + " does not listen");
}

void RoamingLab::stop(unsigned number, int signal) {
  ::kill(-programs_.at(number), signal);
  lab::wait_for(programs_.at(number));
  programs_.erase(number);
}

std::uint64_t RoamingLab::counter(unsigned number, const std::string& name) const {
  return lab::role_number(**lab_, "server" + std::to_string(number), name);
}

std::string RoamingLab::output(unsigned number) const {
  return read_file(lab_->directory() / ("server" + std::to_string(number) + ".out"));
}

unsigned char pattern(std::uint64_t i) {
  return static_cast<unsigned char>((i * 2654435761U) >> 24);
}

std::string read_answer(HttpClient& client, std::uint64_t size) {
  const timeval patience{30, 0};
  ::setsockopt(client.fd(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  std::string head;
  char byte = 0;
  while (head.find("\r\n\r\n") == std::string::npos) {
    if (::recv(client.fd(), &byte, 1, 0) != 1)
      return "no head: " + std::string(std::strerror(errno));
    head.push_back(byte);
  }
  if (!head.starts_with("HTTP/1.1 200")) return head;
  std::vector<char> part(1 << 18);
  for (std::uint64_t done = 0; done < size;) {
    const ssize_t got = ::recv(client.fd(), part.data(), part.size(), 0);
    if (got <= 0)
      return "ends at " + std::to_string(done) + ": " +
             (got == 0 ? "closed" : std::strerror(errno));
    for (std::size_t i = 0; i < static_cast<std::size_t>(got); ++i)
      if (static_cast<unsigned char>(part[i]) != pattern(done + i))
        return "byte " + std::to_string(done + i) + " is wrong";
    done += static_cast<std::uint64_t>(got);
  }
  return ::recv(client.fd(), &byte, 1, 0) == 0 ? "" : "does not end with its last byte";
}

}  // namespace tcpmig::e2e
