// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace tcpmig::http {

/// What a request head says, as far as routing and retrying need it. Nothing is decoded or normalised.
struct RequestHead {
  std::string method;  ///< as sent; case-sensitive (RFC 9110, 9.1)
  std::string target;  ///< as sent
  std::string path;    ///< of the target, without query; "*" for OPTIONS *; empty for CONNECT
  std::string host;    ///< of an absolute target, else of the Host field; without port, lower case
  unsigned version = 11;                                    ///< 10 or 11
  std::vector<std::pair<std::string, std::string>> fields;  ///< in order, values trimmed

  /// May be sent again when nobody knows whether it was executed (RFC 9110, 9.2.2).
  [[nodiscard]] bool is_idempotent() const;
  /// First value of a field (name case-insensitive); nullptr: there is none.
  [[nodiscard]] const std::string* field(std::string_view name) const;
};

enum class Progress {
  kMore,      ///< not complete yet
  kComplete,  ///< head() is valid
  kBad,       ///< answer 400: not HTTP/1.x, or something that two parsers could read differently
  kTooLarge,  ///< answer 431
};

/// Reads one request head from a growing buffer. The grammar is a library's; what it lets through although it could be smuggled is refused
/// here: not exactly one Host on 1.1, a Host that is no authority, line folding, Transfer-Encoding on 1.0 or other than exactly "chunked", more than one
/// Content-Length or a list as its value.
class HeadReader {
 public:
  /// `limit`: largest head in bytes, blank line included.
  explicit HeadReader(std::size_t limit);
  ~HeadReader();
  HeadReader(HeadReader&&) noexcept;
  HeadReader& operator=(HeadReader&&) noexcept;

  /// `all`: everything received so far, that is, the former bytes and any number of new ones. Costs time for the new ones only.
  Progress feed(std::span<const std::byte> all);
  [[nodiscard]] const RequestHead& head() const noexcept;
  [[nodiscard]] std::size_t head_length() const noexcept;   ///< bytes up to and with the blank line
  [[nodiscard]] const std::string& error() const noexcept;  ///< why kBad

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tcpmig::http
