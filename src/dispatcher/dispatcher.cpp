// SPDX-License-Identifier: MIT
#include "dispatcher/dispatcher.hpp"

#include <arpa/inet.h>
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
#include <boost/asio/use_awaitable.hpp>
#include <nlohmann/json.hpp>

#include "control/status_socket.hpp"
#include "dispatcher/shared.hpp"
#include "dispatcher/worker.hpp"
#include "sys/check.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::dispatcher {
namespace asio = boost::asio;
using Descriptor = asio::posix::stream_descriptor;

void LoadTable::report(config::NodeId node, std::uint32_t connections) {
  entries_.at(node).connections.store(connections, std::memory_order_relaxed);
  entries_.at(node).reported_ns.store(monotonic_ns(), std::memory_order_relaxed);
}

policy::Load LoadTable::get(config::NodeId node) const {
  constexpr std::uint64_t kFresh = 1'000'000'000;
  const std::uint64_t reported = entries_.at(node).reported_ns.load(std::memory_order_relaxed);
  return {reported != 0 && monotonic_ns() < reported + kFresh,
          entries_.at(node).connections.load(std::memory_order_relaxed)};
}

namespace {

/// Tens of thousands of clients may wait: as many descriptors as this process may have.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

unsigned worker_count(const config::Node& self) {
  const unsigned wanted =
      self.workers != 0 ? self.workers : std::max(1U, std::thread::hardware_concurrency());
  return std::min<unsigned>(wanted, abi::MAX_LANES);
}

sys::UniqueFd control_socket(const sys::Address& address, std::uint16_t port) {
  sys::UniqueFd fd(sys::check(
      "socket", ::socket(address.family(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  const sys::Endpoint local{address, port};
  const auto [storage, length] = local.to_sockaddr();
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length) < 0)
    throw std::runtime_error(
        "control port " + local.str() + ": " + std::strerror(errno) +
        (errno == EADDRINUSE ? ": another program uses it; stop that or change cluster.control_port"
                             : ""));
  return fd;
}

/// Reports of the servers (LOAD) come to the control port.
asio::awaitable<void> take_loads(Descriptor& socket, Shared& shared,
                                 const control::Opener& opener) {
  std::array<std::byte, 2048> datagram{};
  for (;;) {
    const ssize_t n =
        ::recv(socket.native_handle(), datagram.data(), datagram.size(), MSG_DONTWAIT);
    if (n < 0) {
      co_await socket.async_wait(Descriptor::wait_read, asio::use_awaitable);
      continue;
    }
    const auto message = opener.open(std::span(datagram).first(static_cast<std::size_t>(n)));
    if (!message)
      shared.stats.add(Counter::kBadMessages);
    else if (message->header.type == abi::WIRE_LOAD)
      shared.loads.report(ntohs(message->header.sender), ntohl(message->header.detail));
  }
}

nlohmann::json status(const Shared& shared, unsigned workers, const FreezeKit& kit) {
  nlohmann::json result = shared.stats.json();
  result["role"] = "dispatcher";
  result["node"] = shared.self.name;
  result["pid"] = ::getpid();
  result["ready"] = true;
  result["workers"] = workers;
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

/// Transfers under way reach their end (each has its deadlines), and what follows a moved connection is sent.
void drain(Shared& shared, const std::vector<std::unique_ptr<Worker>>& workers) {
  using Clock = std::chrono::steady_clock;
  for (const auto& worker : workers) worker->stop_accepting();
  const auto deadline = Clock::now() + 2 * shared.config.timeouts.transfer;
  while (shared.stats.in_transfer.load() > 0 && Clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  shared.grace
      .stop();  // what it runs refers to the workers, and is posted to them before they stop
  for (const auto& worker : workers) worker->stop();
}

}  // namespace

int run(const config::Config& config, const config::Node& self) {
  const sys::RolePaths paths = config.paths(self.name);
  const sys::RoleLock lock(paths, "dispatcher");
  raise_descriptor_limit();
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
  Shared shared{config,  self, std::move(secret),
                network, tun,  {},
                {},      {},   std::vector<std::atomic<std::uint64_t>>(config.pools.size())};
  std::vector<std::unique_ptr<Worker>> workers;
  for (unsigned i = 0; i < worker_count(self); ++i)
    workers.push_back(std::make_unique<Worker>(shared, static_cast<std::uint8_t>(i)));

  asio::io_context io(1);
  const control::Opener opener(shared.secret, self.id);
  std::vector<std::unique_ptr<Descriptor>> sockets;
  for (const sys::Address& address : {self.address4, self.address6}) {
    if (!address.is_set()) continue;
    sockets.push_back(
        std::make_unique<Descriptor>(io, control_socket(address, config.control_port).release()));
    asio::co_spawn(io, take_loads(*sockets.back(), shared, opener), asio::detached);
  }
  const control::StatusServer server(io, paths.socket("dispatcher"), [&] {
    return status(shared, static_cast<unsigned>(workers.size()), workers.front()->kit());
  });
  asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&](boost::system::error_code, int) { io.stop(); });
  {
    std::vector<std::jthread> threads;
    for (const auto& worker : workers) threads.emplace_back([&worker] { worker->run(); });
    spdlog::info("dispatcher {} serves {} service(s) with {} event loop(s)", self.name,
                 config.services.size(), workers.size());
    io.run();
    drain(shared, workers);
  }
  workers.clear();
  spdlog::info("dispatcher {} has ended", self.name);
  return 0;
}

}  // namespace tcpmig::dispatcher
