// SPDX-License-Identifier: MIT
#include "dispatcher/dispatcher.hpp"

#include <arpa/inet.h>
#include <endian.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include <spdlog/spdlog.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <nlohmann/json.hpp>

#include "control/status_socket.hpp"
#include "dispatcher/control_port.hpp"
#include "dispatcher/leftovers.hpp"
#include "dispatcher/shared.hpp"
#include "dispatcher/worker.hpp"
#include "sys/check.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::dispatcher {
namespace asio = boost::asio;
using Descriptor = asio::posix::stream_descriptor;

bool LoadTable::report(config::NodeId node, std::uint64_t sequence, std::uint32_t connections) {
  Entry& entry = entries_.at(node);
  if (sequence <= entry.sequence) return false;
  entry.sequence = sequence;
  entry.assigned.store(0, std::memory_order_relaxed);
  entry.connections.store(connections, std::memory_order_relaxed);
  entry.reported_ns.store(monotonic_ns(), std::memory_order_relaxed);
  return true;
}

void LoadTable::assigned(config::NodeId node) {
  entries_.at(node).assigned.fetch_add(1, std::memory_order_relaxed);
}

policy::Load LoadTable::get(config::NodeId node) const {
  // reports come ten times a second
  constexpr std::uint64_t kFresh = 1'000'000'000, kGone = 3 * kFresh;
  const Entry& entry = entries_.at(node);
  const std::uint64_t reported = entry.reported_ns.load(std::memory_order_relaxed);
  const std::uint64_t now = monotonic_ns();
  return {.alive = reported != 0 && now < reported + kFresh,
          .connections = entry.connections.load(std::memory_order_relaxed) +
                         entry.assigned.load(std::memory_order_relaxed),
          .silent = now >= std::max(reported, begun_ns_) + kGone};
}

namespace {

constexpr std::chrono::milliseconds kIntroduction{500};
constexpr std::chrono::milliseconds kLeaving{1000};
constexpr std::chrono::milliseconds kLookPause{5};  // between two looks at what is under way

/// Tens of thousands of clients may wait: as many descriptors as this process may have.
void raise_descriptor_limit(std::uint32_t waiting) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < waiting)
    spdlog::warn(
        "limits.waiting is {}, but this process may have {} descriptors: raise RLIMIT_NOFILE "
        "(systemd: LimitNOFILE)",
        waiting, limit.rlim_max);
}

/// Each event loop has a listener of its own for each service, and the kernel spreads the clients over them. Where these would take too
/// large a part of the descriptors that this process may have, the services are spread over the event loops.
bool too_many_listeners(const config::Config& config, unsigned workers) {
  constexpr rlim_t kShare = 4;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY) return false;
  rlim_t listeners = 0;
  for (const config::Service& service : config.services)
    listeners += static_cast<rlim_t>(service.vip4.is_set()) + service.vip6.is_set();
  return listeners * workers > limit.rlim_cur / kShare;
}

unsigned worker_count(const config::Node& self) {
  const unsigned wanted =
      self.workers != 0 ? self.workers : std::max(1U, std::thread::hardware_concurrency());
  return std::min<unsigned>(wanted, ControlPort::kLane);
}

/// Ends what a dispatcher that was killed has left locked.
asio::awaitable<void> end_leftovers(asio::io_context& io, const control::NodeNetwork& network) {
  asio::steady_timer pause(io);
  try {
    Leftovers leftovers({network.block4(), network.block6()});
    while (leftovers.sweep()) {
      pause.expires_after(std::chrono::milliseconds(250));
      co_await pause.async_wait(asio::use_awaitable);
    }
  } catch (const std::system_error& error) {  // a kernel without SOCK_DESTROY
    spdlog::warn("sockets that an earlier dispatcher has left stay for minutes: {}", error.what());
  }
}

using Workers = std::vector<std::unique_ptr<Worker>>;

nlohmann::json status(const Shared& shared, const Workers& workers, const ControlPort& port) {
  const FreezeKit& kit = workers.front()->kit();
  std::uint64_t lost = 0;
  for (const auto& worker : workers) lost += worker->kit().captures_lost();
  nlohmann::json result = shared.stats.json();
  result["role"] = "dispatcher";
  result["node"] = shared.self.name;
  result["pid"] = ::getpid();
  result["ready"] = true;
  result["workers"] = workers.size();
  result["switch_heard"] = port.switch_heard();
  result["counters"]["captures_without_room"] = lost;
  result["one_call_dump"] = kit.has_dump_program();
  result["small_window"] = kit.keeps_window_small();
  result["warnings"] = kit.warnings();
  for (const config::Node* node : shared.config.with_role(config::Role::kServer)) {
    const policy::Load load = shared.loads.get(node->id);
    result["servers"].push_back(
        {{"name", node->name}, {"alive", load.alive}, {"connections", load.connections}});
  }
  return result;
}

/// Gives back what the node's network was changed by, also when the start fails.
class Undo {
 public:
  explicit Undo(sys::Ledger& ledger) : ledger_(ledger) {}
  ~Undo() {
    try {
      ledger_.undo();
    } catch (const std::exception& error) {
      spdlog::error("{}", error.what());
    }
  }
  Undo(const Undo&) = delete;
  Undo& operator=(const Undo&) = delete;

 private:
  sys::Ledger& ledger_;
};

/// Ends the event loops.
class Stopping {
 public:
  explicit Stopping(const Workers& workers) : workers_(workers) {}
  ~Stopping() {
    for (const auto& worker : workers_) worker->stop();
  }
  Stopping(const Stopping&) = delete;
  Stopping& operator=(const Stopping&) = delete;

 private:
  const Workers& workers_;
};

/// The switch ends what the clients of a former run have left, and takes for those the ones that were there before the first
/// heartbeat of this run: so it is heard before this run listens. (Where no switch answers there is nothing to wait for.)
void introduce(asio::io_context& io, ControlPort& port) {
  const auto deadline = std::chrono::steady_clock::now() + kIntroduction;
  while (!io.stopped() && !port.switch_heard() && std::chrono::steady_clock::now() < deadline)
    io.run_one_for(std::chrono::milliseconds(10));
}

/// The switch has new clients go elsewhere, where there is an elsewhere. Those that it sends until then are served.
void leave_maglev(asio::io_context& io, const Shared& shared, ControlPort& port) {
  port.drain();
  if (shared.config.with_role(config::Role::kDispatcher).size() < 2 || !port.switch_heard()) return;
  io.run_for(kLeaving);
}

/// Transfers under way reach their end (each has its deadlines), and what follows a moved connection is sent.
/// The main loop goes on meanwhile: heartbeats, what the switch answers, status.
void drain(asio::io_context& io, Shared& shared, const Workers& workers, ControlPort& port) {
  using Clock = std::chrono::steady_clock;
  io.restart();
  leave_maglev(io, shared, port);
  shared.stopping = true;
  for (const auto& worker : workers) worker->stop_accepting();
  std::size_t servers = 0;  // each may have been silent for a time
  for (const config::Pool& pool : shared.config.pools)
    servers = std::max(servers, pool.servers.size());
  const auto deadline = Clock::now() + (servers + 2) * shared.config.timeouts.transfer;
  while (shared.stats.in_transfer.load() > 0 && Clock::now() < deadline) io.run_one_for(kLookPause);
  shared.grace
      .stop();  // what it runs refers to the workers, and is posted to them before they stop
}

}  // namespace

int run(const config::Config& config, const config::Node& self) {
  const sys::RolePaths paths = config.paths(self.name);
  const sys::RoleLock lock(paths, "dispatcher");
  raise_descriptor_limit(config.limits.waiting);
  ::signal(SIGPIPE, SIG_IGN);  // splice(2) has no MSG_NOSIGNAL
  sys::Netlink netlink;
  control::Secret secret = control::Secret::load(config.secret_file);
  sys::Ledger ledger(paths.ledger("dispatcher"), netlink);
  const Undo undo(ledger);
  ledger.begin_adoption();
  const control::NodeNetwork network(config, self, ledger, netlink);
  if (self.tune_receive_sysctls) {
    ledger.set_sysctl("net.ipv4.tcp_rmem", "4096 32768 6291456");
    ledger.set_sysctl("net.ipv4.tcp_moderate_rcvbuf", "0");
  }
  ledger.finish_adoption();
  sys::Tun tun("tcpmig0");
  const unsigned count = worker_count(self);
  Shared shared{config,
                self,
                std::move(secret),
                network,
                tun,
                {},
                {},
                {},
                {},
                {},
                std::vector<std::atomic<std::uint64_t>>(config.pools.size()),
                count,
                too_many_listeners(config, count)};
  asio::io_context io(1);
  asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&](boost::system::error_code, int) { io.stop(); });
  ControlPort port(io, shared);
  introduce(io, port);
  Workers workers;
  for (unsigned i = 0; i < count; ++i)
    workers.push_back(std::make_unique<Worker>(shared, static_cast<std::uint8_t>(i)));
  port.serve();

  asio::co_spawn(io, end_leftovers(io, network), asio::detached);
  const control::StatusServer server(io, paths.socket("dispatcher"),
                                     [&] { return status(shared, workers, port); });
  {
    std::vector<std::jthread> threads;
    const Stopping stopping(workers);  // before the threads are joined, whatever happens
    for (const auto& worker : workers) threads.emplace_back([&worker] { worker->run(); });
    spdlog::info("dispatcher {} serves {} service(s) with {} event loop(s){}", self.name,
                 config.services.size(), workers.size(),
                 shared.one_loop_each ? ", each with one, for want of descriptors" : "");
    io.run();
    drain(io, shared, workers, port);
  }
  workers.clear();
  spdlog::info("dispatcher {} has ended", self.name);
  return 0;
}

}  // namespace tcpmig::dispatcher
