// SPDX-License-Identifier: MIT
#include "soak/server.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "soak/content.hpp"
#include "sys/address.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::soak {
namespace {

constexpr std::size_t kWords = 20;
constexpr std::size_t kBrokenWords = 40;

sys::UniqueFd listen_on(int family) {
  sys::UniqueFd fd(
      sys::check("socket", ::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (family == AF_INET6) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  sockaddr_storage any{};
  any.ss_family = static_cast<sa_family_t>(family);
  reinterpret_cast<sockaddr_in*>(&any)->sin_port = htons(80);  // at the same place in both
  sys::check("bind port 80",
             ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any),
                    family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6)));
  sys::check("listen", ::listen(fd.get(), 4096));
  return fd;
}

}  // namespace

void Record::say(const std::string& what) {
  if (totals_.words.size() < kWords) totals_.words.push_back(what);
}

void Record::executed(std::uint64_t id, bool post, const std::string& where) {
  const std::lock_guard lock(mutex_);
  if (!post) {
    ++totals_.gets;
    if (gets_[id]++ == 1) ++totals_.gets_again;
    return;
  }
  ++totals_.posts;
  const auto [found, first] = posts_.emplace(id, where);
  if (first) return;
  ++totals_.posts_twice;
  say("POST " + path_of(id) + " was executed twice: " + found->second + ", then " + where);
}

void Record::answered_twice(std::uint64_t id, const std::string& where) {
  const std::lock_guard lock(mutex_);
  ++totals_.same_connection;
  say(path_of(id) + " came twice on one connection, " + where);
}

void Record::wrong(const std::string& what) {
  const std::lock_guard lock(mutex_);
  ++totals_.wrong;
  say(what);
}

void Record::broken(const std::string& what) {
  const std::lock_guard lock(mutex_);
  ++totals_.broken;
  totals_.broken_words.push_back(what);
  if (totals_.broken_words.size() > kBrokenWords)
    totals_.broken_words.erase(totals_.broken_words.begin());
}

Record::Totals Record::totals() const {
  const std::lock_guard lock(mutex_);
  return totals_;
}

struct Server::Connection {
  sys::UniqueFd fd;
  std::string peer;
  std::string in;  ///< what is not yet consumed
  // the request that is being read
  bool in_body = false, post = false, close = false;
  std::uint64_t id = 0;
  std::size_t body_size = 0, body_read = 0;
  Hash hash;
  // the reply that is being written
  bool writing = false;
  std::string head;
  std::size_t head_sent = 0, reply_sent = 0;
  std::vector<std::uint64_t> seen;
  [[nodiscard]] std::string where(const std::string& server) const {
    return server + " for " + peer + " request " + std::to_string(seen.size());
  }
};

Server::Server(const std::string& netns, std::string name, Record& record)
    : name_(std::move(name)),
      record_(record),
      epoll_(sys::check("epoll_create1", ::epoll_create1(EPOLL_CLOEXEC))) {
  const sys::EnterNetns inside(netns);
  for (const int family : {AF_INET, AF_INET6}) {
    listeners_.push_back(listen_on(family));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = listeners_.back().get();
    sys::check("epoll_ctl", ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, event.data.fd, &event));
  }
  thread_ = std::thread([this] { serve(); });
}

Server::~Server() {
  stop_ = true;
  thread_.join();
}

void Server::serve() {
  epoll_event events[64];
  while (!stop_) {
    const int count = ::epoll_wait(epoll_.get(), events, 64, 100);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (std::ranges::any_of(listeners_, [&](const auto& one) { return one.get() == fd; })) {
        accept_all(fd);
        continue;
      }
      const auto found = connections_.find(fd);
      if (found == connections_.end()) continue;
      if (found->second->writing)
        write(*found->second);
      else
        read(*found->second);
    }
  }
}

void Server::accept_all(int listener) {
  for (;;) {
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    sys::UniqueFd fd(::accept4(listener, reinterpret_cast<sockaddr*>(&peer), &size,
                               SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) return;
    const int on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.fd = fd.get();
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) continue;
    auto connection = std::make_unique<Connection>();
    connection->peer = sys::Endpoint::from_sockaddr(peer).str();
    connection->fd = std::move(fd);
    const int key = connection->fd.get();
    read(*(connections_[key] = std::move(connection)));
  }
}

/// Reads and answers until there is nothing to read, or a reply does not fit the send buffer.
void Server::read(Connection& connection) {
  const int key = connection.fd.get();
  for (;;) {
    while (connection.in_body ? take_body(connection) : take_head(connection)) {
      if (!connections_.contains(key) || connection.writing) return;
    }
    if (!connections_.contains(key)) return;
    const ssize_t got = ::recv(key, buffer_.data(), buffer_.size(), 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      if (got < 0 || connection.in_body)
        record_.broken(connection.where(name_) + (connection.post ? " POST " : " GET ") +
                       (got < 0 ? std::strerror(errno) : "end of file") + " after " +
                       std::to_string(connection.body_read) + " of " +
                       std::to_string(connection.body_size) + " bytes");
      return end(connection);
    }
    connection.in.append(buffer_.data(), static_cast<std::size_t>(got));
  }
}

/// False: there is no whole head.
bool Server::take_head(Connection& connection) {
  const std::size_t end_of_head = connection.in.find("\r\n\r\n");
  if (end_of_head == std::string::npos) return false;
  const std::string head = connection.in.substr(0, end_of_head + 2);
  connection.in.erase(0, end_of_head + 4);
  const std::size_t blank = head.find(' '), second = head.find(' ', blank + 1);
  const std::string method = head.substr(0, blank);
  const auto id = id_of(std::string_view(head).substr(blank + 1, second - blank - 1));
  if (!id || (method != "GET" && method != "POST")) {
    record_.wrong(connection.where(name_) + ": a head that nobody has sent: " + head);
    end(connection);
    return true;
  }
  connection.id = *id;
  connection.post = method == "POST";
  connection.close = header(head, "Connection") == "close";
  connection.body_size = connection.post ? request_size(*id) : 0;
  connection.body_read = 0;
  connection.hash = Hash();
  connection.in_body = true;
  return true;
}

/// False: the body is not complete.
bool Server::take_body(Connection& connection) {
  const std::size_t count =
      std::min(connection.in.size(), connection.body_size - connection.body_read);
  const std::string_view part = std::string_view(connection.in).substr(0, count);
  if (const auto at = Stream(connection.id, true).differs(connection.body_read, part)) {
    record_.wrong(connection.where(name_) + ": the body of " + path_of(connection.id) +
                  " is wrong at byte " + std::to_string(*at));
    end(connection);
    return true;
  }
  connection.hash.add(part);
  connection.in.erase(0, count);
  connection.body_read += count;
  if (connection.body_read < connection.body_size) return false;
  connection.in_body = false;
  answer(connection);
  return true;
}

void Server::answer(Connection& connection) {
  const std::uint64_t id = connection.id;
  if (std::ranges::find(connection.seen, id) != connection.seen.end())
    record_.answered_twice(id, connection.where(name_));
  connection.seen.push_back(id);
  record_.executed(id, connection.post, connection.where(name_));
  connection.head = "HTTP/1.1 200 OK\r\nX-Id: " + path_of(id) + "\r\nX-Server: " + name_ +
                    "\r\nX-Peer: " + connection.peer +
                    (connection.post ? "\r\nX-Hash: " + connection.hash.hex() : "") +
                    "\r\nContent-Length: " + std::to_string(reply_size(id)) +
                    (connection.close ? "\r\nConnection: close" : "") + "\r\n\r\n";
  connection.head_sent = connection.reply_sent = 0;
  connection.writing = true;
  write(connection);
}

void Server::write(Connection& connection) {
  const std::size_t total = reply_size(connection.id);
  const Stream stream(connection.id, false);
  std::string chunk;
  while (connection.head_sent < connection.head.size() || connection.reply_sent < total) {
    chunk = connection.head.substr(connection.head_sent);
    const std::size_t head_part = chunk.size();
    const std::size_t body_part = std::min<std::size_t>(total - connection.reply_sent, 32 * 1024);
    chunk.resize(head_part + body_part);
    stream.fill(connection.reply_sent, chunk.data() + head_part, body_part);
    const ssize_t sent = ::send(connection.fd.get(), chunk.data(), chunk.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) {
      record_.broken(connection.where(name_) + " answering: " + std::strerror(errno));
      return end(connection);
    }
    const auto count = static_cast<std::size_t>(sent), of_head = std::min(count, head_part);
    connection.head_sent += of_head;
    connection.reply_sent += count - of_head;
  }
  connection.writing = false;
  if (connection.close) return end(connection);
  read(connection);  // the event that told of more input may have come while this was being written
}

void Server::end(Connection& connection) { connections_.erase(connection.fd.get()); }

}  // namespace tcpmig::soak
