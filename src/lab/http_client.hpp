// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <map>
#include <string>

#include "sys/address.hpp"
#include "sys/unique_fd.hpp"

/// A client that does exactly what it is told: bytes as given, one connection, every wait bounded.
namespace tcpmig::lab {

struct Response {
  int status = 0;                              ///< 0: the connection ended before a whole response
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;
  bool complete = false;
  bool keeps_alive = false;  ///< HTTP/1.1, and not "Connection: close"
};

class HttpClient {
 public:
  /// Connects from inside a network namespace. Throws on failure.
  HttpClient(const std::string& netns, const sys::Endpoint& to);

  void send(std::string_view bytes);
  /// Every byte in a segment of its own.
  void send_slowly(std::string_view bytes);
  void half_close();
  /// The next response: by Content-Length, or to the end of file. `with_body` false: HEAD.
  Response receive(bool with_body = true);
  /// Everything until the end of file (or a reset).
  std::string receive_all();
  /// True when the peer closes (end of file or reset) within the time, whatever it sends before.
  bool closed_within(std::chrono::milliseconds limit);
  [[nodiscard]] sys::Endpoint local() const;
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  /// Closes with a RST.
  void reset();

 private:
  bool fill(std::chrono::milliseconds limit);  ///< false: end of file
  sys::UniqueFd fd_;
  std::string buffer_;
};

/// Status and headers; `head` ends with an empty line.
Response parse_response_head(const std::string& head);

std::string get(const std::string& path, const std::string& more_headers = {});

}  // namespace tcpmig::lab
