// SPDX-License-Identifier: MIT
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "sys/unique_fd.hpp"

/// The application: a plain TCP server that knows nothing of tcpmig and keeps a record of what it
/// was asked.
namespace tcpmig::soak {

/// What all servers together have executed.
class Record {
 public:
  /// A request was read to its end and is going to be answered, on this server's connection.
  void executed(std::uint64_t id, bool post, const std::string& where);
  void answered_twice(std::uint64_t id, const std::string& where);
  void wrong(const std::string& what);
  /// A connection ended where more was to come; whose fault it is, the clients' side tells.
  void broken(const std::string& what);

  struct Totals {
    std::uint64_t gets = 0, posts = 0;
    std::uint64_t posts_twice = 0;      ///< executed more than once
    std::uint64_t same_connection = 0;  ///< one id answered twice on one connection
    std::uint64_t wrong = 0;            ///< bytes that no client has sent
    std::uint64_t gets_again = 0;       ///< one GET on more than one connection: a retry, allowed
    std::vector<std::string> words;     ///< the first of what must not be
    std::uint64_t broken = 0;
    std::vector<std::string> broken_words;  ///< the last of them
  };
  [[nodiscard]] Totals totals() const;

 private:
  void say(const std::string& what);
  mutable std::mutex mutex_;
  Totals totals_;
  std::unordered_map<std::uint64_t, std::string> posts_;  ///< id -> where first
  std::unordered_map<std::uint64_t, std::uint8_t> gets_;
};

/// Listens on port 80 of a node, both families, from its making to its end.
class Server {
 public:
  Server(const std::string& netns, std::string name, Record& record);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

 private:
  struct Connection;
  void serve();
  void accept_all(int listener);
  void read(Connection& connection);
  bool take_head(Connection& connection);
  bool take_body(Connection& connection);
  void answer(Connection& connection);
  void write(Connection& connection);
  void end(Connection& connection);

  std::string name_;
  Record& record_;
  std::vector<sys::UniqueFd> listeners_;
  sys::UniqueFd epoll_;
  std::map<int, std::unique_ptr<Connection>> connections_;
  std::vector<char> buffer_ = std::vector<char>(64 * 1024);
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace tcpmig::soak
