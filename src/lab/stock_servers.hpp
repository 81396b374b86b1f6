// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lab/lab.hpp"

/// Web servers as the distribution ships them, started unmodified on a node of a lab: for the demo
/// and tests.
namespace tcpmig::lab {

enum class ServerKind {
  kMiniHttpd,
  kNginx,
  kLighttpd,
  kPython,
  kNode,
  kApacheEvent,
  kApachePrefork
};
std::string to_string(ServerKind kind);
/// Does it answer more than one request on a connection, as it comes?
bool keeps_alive(ServerKind kind);
/// The program of a kind; nullopt: not installed.
std::optional<std::filesystem::path> find_server(ServerKind kind);

/// One line of an access log.
struct LogEntry {
  sys::Address client;  ///< as the server saw it (getpeername)
  std::string path;
  std::string line;
};

/// A server that runs; ended with the object.
class StockServer {
 public:
  struct Options {
    ServerKind kind = ServerKind::kMiniHttpd;
    std::string node;
    std::filesystem::path documents;
    std::filesystem::path work;  ///< an own directory for configuration and logs; made
    std::uint16_t port = 80;
    std::vector<std::string> under{};  ///< what it is started by: {"tcpmig", "exec", "--"}
  };
  /// Starts it and returns when it accepts on both families. Throws with the end of its log.
  StockServer(const Lab& lab, const Options& options);
  ~StockServer();
  StockServer(StockServer&& other) noexcept;
  StockServer& operator=(StockServer&&) = delete;

  void stop() noexcept;
  /// Leaves it running: it ends with the lab.
  void release() noexcept { pid_ = -1; }
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  [[nodiscard]] const std::string& node() const noexcept { return options_.node; }
  [[nodiscard]] ServerKind kind() const noexcept { return options_.kind; }
  /// Requests logged so far.
  [[nodiscard]] std::vector<LogEntry> log() const;

 private:
  [[nodiscard]] std::filesystem::path log_file() const;
  Options options_;
  pid_t pid_ = -1;
};

/// True when a TCP connection to this address succeeds from inside a network namespace. Waits at
/// most `limit`.
bool can_connect(const std::string& netns, const sys::Endpoint& to,
                 std::chrono::milliseconds limit);

}  // namespace tcpmig::lab
