// SPDX-License-Identifier: MIT
#include "dispatcher/answers.hpp"

namespace tcpmig::dispatcher {
namespace {

const char* phrase(unsigned status) {
  switch (status) {
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 408:
      return "Request Timeout";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Error";
  }
}

}  // namespace

std::string to_message(const OwnAnswer& answer) {
  const std::string line = std::to_string(answer.status) + " " + phrase(answer.status);
  const std::string body = line + ": " + answer.why + "\n";
  return "HTTP/1.1 " + line +
         "\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\nConnection: close\r\n\r\n" + (answer.to_head ? std::string() : body);
}

}  // namespace tcpmig::dispatcher
