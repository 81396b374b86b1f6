// SPDX-License-Identifier: MIT
#include "lab/http_client.hpp"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cctype>
#include <sstream>
#include <stdexcept>

#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::lab {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kPatience{15'000};

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

}  // namespace

Response parse_response_head(const std::string& head) {
  Response response;
  std::istringstream lines(head);
  std::string line;
  std::getline(lines, line);
  if (line.size() > 12 && line.starts_with("HTTP/1."))
    response.status = std::stoi(line.substr(9, 3));
  while (std::getline(lines, line) && line != "\r") {
    const auto colon = line.find(':');
    if (colon == std::string::npos || colon + 2 >= line.size()) continue;
    const auto value = line.find_first_not_of(' ', colon + 1);
    response.headers[lower(line.substr(0, colon))] = line.substr(value, line.size() - value - 1);
  }
  response.keeps_alive =
      head.starts_with("HTTP/1.1") && lower(response.headers["connection"]) != "close";
  return response;
}

HttpClient::HttpClient(const std::string& netns, const sys::Endpoint& to) {
  const auto [address, length] = to.to_sockaddr();
  const sys::EnterNetns inside(netns);
  fd_.reset(sys::check("socket", ::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  const int on = 1;
  ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const timeval patience{kPatience.count() / 1000, 0};  // also the limit of connect()
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  sys::check("connect " + to.str(),
             ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), length));
}

void HttpClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent =
        sys::check("send", ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

void HttpClient::send_slowly(std::string_view bytes) {
  for (const char byte : bytes) send({&byte, 1});
}

void HttpClient::half_close() { sys::check("shutdown", ::shutdown(fd_.get(), SHUT_WR)); }

void HttpClient::reset() {
  const linger at_once{1, 0};
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  fd_.reset();
}

bool HttpClient::fill(milliseconds limit) {
  pollfd wait{fd_.get(), POLLIN, 0};
  if (::poll(&wait, 1, static_cast<int>(limit.count())) != 1)
    throw std::runtime_error("nothing came within " + std::to_string(limit.count()) + " ms");
  char bytes[65'536];
  const ssize_t got = sys::check("recv", ::recv(fd_.get(), bytes, sizeof bytes, 0));
  buffer_.append(bytes, static_cast<std::size_t>(got));
  return got > 0;
}

Response HttpClient::receive(bool with_body) {
  auto end = buffer_.find("\r\n\r\n");
  for (; end == std::string::npos; end = buffer_.find("\r\n\r\n"))
    if (!fill(kPatience)) return {};
  Response response = parse_response_head(buffer_.substr(0, end + 4));
  buffer_.erase(0, end + 4);
  response.complete = true;
  if (!with_body) return response;
  const auto length = response.headers.find("content-length");
  if (length == response.headers.end()) {
    response.body = receive_all();
    return response;
  }
  const auto size = static_cast<std::size_t>(std::stoull(length->second));
  while (buffer_.size() < size && response.complete) response.complete = fill(kPatience);
  response.body = buffer_.substr(0, size);
  buffer_.erase(0, response.body.size());
  return response;
}

std::string HttpClient::receive_all() {
  while (fill(kPatience)) {
  }
  return std::exchange(buffer_, {});
}

bool HttpClient::closed_within(milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  try {
    for (;;) {
      const auto left =
          std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
      if (!fill(std::max(left, milliseconds(0)))) return true;
    }
  } catch (const std::system_error&) {
    return true;  // reset
  } catch (const std::runtime_error&) {
    return false;
  }
}

sys::Endpoint HttpClient::local() const {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  sys::check("getsockname",
             ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&storage), &length));
  return sys::Endpoint::from_sockaddr(storage);
}

std::string get(const std::string& path, const std::string& more_headers) {
  return "GET " + path + " HTTP/1.1\r\nHost: lab.example\r\n" + more_headers + "\r\n";
}

}  // namespace tcpmig::lab
