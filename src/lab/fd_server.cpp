// SPDX-License-Identifier: MIT
#include "lab/fd_server.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <iostream>
#include <stdexcept>
#include <tcpmig/resume.hpp>
#include <vector>

#include "lab/interrupt.hpp"
#include "sys/address.hpp"
#include "sys/check.hpp"
#include "sys/errors.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::lab {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kHeadMax = 65'536;
constexpr std::chrono::seconds kIdleMax{30};

/// A client's connection: what has been read of its next request.
struct Connection {
  sys::UniqueFd fd;
  sys::Endpoint peer;
  std::string head;
  Clock::time_point last_used = Clock::now();
};

/// A socket that nobody listens on is what a killed server has left. Anything else at that place is
/// not ours to remove.
void remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat there{};
  if (::lstat(path.c_str(), &there) != 0) return;  // what else is wrong, bind() will say
  if (!S_ISSOCK(there.st_mode))
    throw sys::WrongSetup(path + " is there and is no socket: name another place with --socket");
  const sys::UniqueFd probe(
      sys::check("socket", ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  const int refused =
      ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (refused == 0 || errno != ECONNREFUSED)
    throw sys::AlreadyRunning("another server listens on " + path +
                              " already: stop it, or name another place with --socket");
  sys::check("remove " + path, ::unlink(path.c_str()));
}

sys::UniqueFd listen_on(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    throw std::invalid_argument(path + " is too long for a Unix socket");
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  sys::UniqueFd fd(sys::check("socket", ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)));
  remove_stale(path, address);
  sys::check("bind " + path,
             ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  sys::check("listen " + path, ::listen(fd.get(), 64));
  return fd;
}

Connection take(sys::UniqueFd fd) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  sys::check("getpeername",
             ::getpeername(fd.get(), reinterpret_cast<sockaddr*>(&storage), &length));
  return {std::move(fd), sys::Endpoint::from_sockaddr(storage), {}};
}

bool send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

bool wants_close(const std::string& head) {
  return head.find(" HTTP/1.0\r\n") != std::string::npos ||
         head.find("onnection: close") != std::string::npos;
}

/// Reads what is there; answers every complete head. False: the connection is over.
bool serve(Connection& client, const std::string& name) {
  char buffer[16'384];
  const ssize_t got = ::recv(client.fd.get(), buffer, sizeof buffer, MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  client.last_used = Clock::now();
  client.head.append(buffer, static_cast<std::size_t>(got));
  for (auto end = client.head.find("\r\n\r\n"); end != std::string::npos;
       end = client.head.find("\r\n\r\n")) {
    const std::string head = client.head.substr(0, end + 4);
    client.head.erase(0, end + 4);
    const std::string body = name + " serves " + client.peer.str() + " (request of " +
                             std::to_string(head.size()) + " bytes)\n";
    const bool close = wants_close(head);
    if (!send_all(
            client.fd.get(),
            "HTTP/1.1 200 OK\r\nServer: " + name + "\r\nX-Peer: " + client.peer.str() +
                "\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(body.size()) +
                (close ? "\r\nConnection: close" : "") + "\r\n\r\n" + body) ||
        close)
      return false;
  }
  return client.head.size() <= kHeadMax;
}

struct Server {
  std::string name;
  sys::UniqueFd listener;
  std::vector<sys::UniqueFd> agents;
  std::vector<Connection> clients;

  [[nodiscard]] std::vector<pollfd> interests() const {
    std::vector<pollfd> result{{listener.get(), POLLIN, 0}};
    for (const sys::UniqueFd& agent : agents) result.push_back({agent.get(), POLLIN, 0});
    for (const Connection& client : clients) result.push_back({client.fd.get(), POLLIN, 0});
    return result;
  }

  /// A connection from an agent: each brings one connection of a client.
  void receive(const sys::UniqueFd& agent) {
    try {
      if (auto taken = take_connection(agent.get()))
        clients.push_back(take(std::move(taken->first)));
    } catch (const std::exception& error) {
      std::cerr << name << ": " << error.what() << '\n';
    }
  }

  void handle(const std::vector<pollfd>& events) {
    const std::size_t known_agents = agents.size();
    for (std::size_t i = clients.size(); i-- > 0;)
      if ((events[1 + known_agents + i].revents != 0 && !serve(clients[i], name)) ||
          Clock::now() - clients[i].last_used > kIdleMax)
        clients.erase(clients.begin() + static_cast<long>(i));
    for (std::size_t i = known_agents; i-- > 0;)
      if (events[1 + i].revents != 0) {
        receive(agents[i]);
        agents.erase(agents.begin() + static_cast<long>(i));
      }
    if (events[0].revents == 0) return;
    sys::UniqueFd agent(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (agent) agents.push_back(std::move(agent));
  }
};

}  // namespace

int fd_server(const std::string& socket_path, const std::string& name) {
  const CatchInterrupts catcher;
  Server server{name, listen_on(socket_path), {}, {}};
  while (!interrupted()) {
    std::vector<pollfd> events = server.interests();
    if (::poll(events.data(), events.size(), 250) > 0) server.handle(events);
  }
  ::unlink(socket_path.c_str());
  return 0;
}

}  // namespace tcpmig::lab
