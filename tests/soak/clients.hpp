// SPDX-License-Identifier: MIT
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "lab/lab.hpp"
#include "sys/unique_fd.hpp"

/// The clients: so many connections at a time, each with one or more requests, every byte compared.
namespace tcpmig::soak {

using Clock = std::chrono::steady_clock;

enum class How {
  kRefused,  ///< connect() failed
  kReset,
  kEnded,   ///< end of file where there was to be more
  kHung,    ///< beyond the deadline
  kStatus,  ///< an answer that is not 200
  kWrong,   ///< wrong bytes
  kMixed,   ///< the reply to another request
};
const char* to_string(How how);

/// A connection that did not come to a good end.
struct Failure {
  How how{};
  std::string detail;
  sys::Endpoint client, vip;
  Clock::time_point begun, ended;
  bool connected = false;
  bool post = false;      ///< the request that was under way
  unsigned replies = 0;   ///< whole ones before
  bool any_byte = false;  ///< of a reply, ever
  bool migrated = false;  ///< a reply said that its server sees the client itself
  unsigned status = 0;    ///< of kStatus
};

struct ClientOptions {
  std::string netns;
  std::vector<sys::Endpoint> vips;
  std::uint64_t seed = 1;
  unsigned parallel = 96;
  std::chrono::seconds deadline{60};  ///< of one request
};

/// Runs from its making until finish(); what fails is given to `failed` (in the clients' thread, at
/// once).
class Clients {
 public:
  Clients(ClientOptions options, std::function<void(const Failure&)> failed);
  ~Clients();
  Clients(const Clients&) = delete;
  Clients& operator=(const Clients&) = delete;

  struct Totals {
    std::uint64_t connections = 0;  ///< begun
    std::uint64_t good = 0;         ///< came to a good end
    std::uint64_t requests = 0;     ///< answered, each byte right
    std::uint64_t posts = 0;        ///< of these
    std::uint64_t migrations =
        0;  ///< connections whose first reply came from a server that sees the client
    std::uint64_t relays = 0;  ///< ... from a server that sees somebody else
    std::uint64_t failed = 0;
    std::uint64_t open = 0;
    std::uint64_t bytes = 0;  ///< of replies
  };
  [[nodiscard]] Totals totals() const;
  /// No new connections; returns when those that are open have ended (each has its deadline), or
  /// after Ctrl-C.
  void finish();

 private:
  struct Slot;
  void work();
  void begin(Slot& slot);
  void plan(Slot& slot);
  void event(Slot& slot, std::uint32_t events);
  void send(Slot& slot);
  void next_requests(Slot& slot);
  void receive(Slot& slot);
  bool take(Slot& slot);
  bool take_head(Slot& slot);
  void reply_done(Slot& slot);
  void at_end(Slot& slot);
  void good(Slot& slot);
  void fail(Slot& slot, How how, const std::string& detail);
  void look_at_clock(Slot& slot);
  std::uint64_t draw(std::uint64_t low, std::uint64_t high);

  ClientOptions options_;
  std::function<void(const Failure&)> failed_;
  sys::UniqueFd epoll_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::uint64_t next_id_ = 1;
  std::vector<char> buffer_ = std::vector<char>(256 * 1024);
  mutable std::mutex mutex_;
  Totals totals_;
  std::atomic<bool> finishing_{false}, stop_{false};
  std::thread thread_;
};

}  // namespace tcpmig::soak
