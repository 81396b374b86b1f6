// SPDX-License-Identifier: MIT
#include "migrations.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <cstring>
#include <future>
#include <stdexcept>
#include <tcpmig/migrate.hpp>
#include <tcpmig/resume.hpp>

#include "fetch.hpp"
#include "figures.hpp"
#include "lab/generate.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPatience = 5000;  // ms

sys::UniqueFd listen_at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  sys::UniqueFd fd(sys::check("socket", ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)));
  sys::check("bind " + path,
             ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  sys::check("listen", ::listen(fd.get(), 64));
  return fd;
}

TakenConnection take(int listener) {
  pollfd wait{listener, POLLIN, 0};
  if (::poll(&wait, 1, kPatience) != 1) throw std::runtime_error("no agent brings a connection");
  const sys::UniqueFd channel(
      sys::check("accept", ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)));
  auto taken = take_any_connection(channel.get());
  if (!taken) throw std::runtime_error("an agent has taken its connection back");
  return std::move(*taken);
}

}  // namespace

Migrations::Migrations(const Plan& plan, const std::string& name)
    : lab_({.name = name, .servers = 2, .config_text = config(), .program = plan.program}),
      ports_(*lab_, "client1"),
      first_(listen_at(handoff("server1"))),
      second_(listen_at(handoff("server2"))) {}

std::string Migrations::handoff(const std::string& node) const {
  return directory_.path() / (node + ".sock");
}

/// New connections go to the first server: "/again" is asked for by nobody.
std::string Migrations::config() const {
  std::string text = lab::web_service();
  for (const auto& [prefix, pool] : {std::pair("/again", "second"), std::pair("/", "first")})
    text +=
        std::string("[[service.route]]\nprefix = \"") + prefix + "\"\npool = \"" + pool + "\"\n";
  for (const auto& [pool, node] : {std::pair("first", "server1"), std::pair("second", "server2")})
    text += std::string("[[pool]]\nname = \"") + pool + "\"\nservers = [{ node = \"" + node +
            "\", port = 80, handoff = \"" + handoff(node) + "\" }]\n";
  return text;
}

double Migrations::once(std::size_t state) {
  const sys::Endpoint vip{lab_->config().services.at(0).vip4, 80};
  auto client = std::async(std::launch::async, [&] {
    const sys::EnterNetns inside(lab_->node("client1").netns);
    return fetch(vip, closing_request("/"), ports_).bytes;
  });
  auto second = std::async(std::launch::async, [&] {
    TakenConnection taken = take(second_.get());
    return std::pair(std::move(taken), Clock::now());
  });
  TakenConnection here = take(first_.get());
  char request[4096];
  sys::check("recv", ::recv(here.fd.get(), request, sizeof request, 0));
  const std::vector<std::byte> blob(state);
  const auto begun = Clock::now();
  auto moved = migrate(std::move(here.fd), "server2", blob,
                       {.agent = "/run/tcpmig/" + lab_->name() + "/server1/exec.sock"});
  if (!moved) throw std::runtime_error("migrate: " + moved.error().reason);
  const auto [there, at] = second.get();
  if (!there.blob || there.blob->size() != state)
    throw std::runtime_error("the state did not come along");
  const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  sys::check("send", ::send(there.fd.get(), answer.data(), answer.size(), MSG_NOSIGNAL));
  client.get();
  return microseconds(at - begun);
}

}  // namespace tcpmig::bench
