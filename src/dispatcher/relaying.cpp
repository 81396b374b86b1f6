// SPDX-License-Identifier: MIT
#include "dispatcher/relaying.hpp"

#include <sys/socket.h>

#include <set>
#include <utility>

#include <spdlog/spdlog.h>

#include "relay/opening.hpp"
#include "relay/relay.hpp"

namespace tcpmig::dispatcher {
namespace asio = boost::asio;

namespace {

/// Servers that take connections as descriptors have nothing to connect to.
std::set<std::size_t> without_listener(const config::Pool& pool) {
  std::set<std::size_t> result;
  for (std::size_t i = 0; i < pool.servers.size(); ++i)
    if (!pool.servers[i].handoff.empty()) result.insert(i);
  return result;
}

/// The server's own address, in a family that this node has too.
sys::Endpoint address_of(const Shared& shared, const config::PoolServer& server) {
  const config::Node* node = shared.config.find_node(server.node_id);
  if (node == nullptr) return {};
  const bool ipv4 = node->address4.is_set() && shared.self.address4.is_set();
  return {ipv4 ? node->address4 : node->address6, server.port};
}

/// Of the client, as the kernel has it.
sys::Endpoint peer_of(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) < 0) return {};
  return sys::Endpoint::from_sockaddr(address);
}

/// Its server, connected; without a descriptor when none would be.
asio::awaitable<sys::UniqueFd> connect_to_pool(Worker& worker, const config::Pool& pool) {
  Shared& shared = worker.shared();
  std::set<std::size_t> tried = without_listener(pool);
  const std::uint64_t turn = shared.next_turn(pool);
  const auto load = [&](config::NodeId node) { return shared.loads.get(node); };
  while (const auto index = policy::choose(pool, turn, tried, load)) {
    tried.insert(*index);
    const config::PoolServer& server = pool.servers[*index];
    const sys::Endpoint to = address_of(shared, server);
    shared.loads.assigned(server.node_id);
    auto fd = co_await relay::connect(worker.io(), to, shared.config.timeouts.transfer);
    if (fd) co_return fd;
    shared.stats.add(Counter::kRelayNotConnected);
    spdlog::debug("no connection to {} for a relay", to.str());
  }
  co_return sys::UniqueFd();
}

}  // namespace

asio::awaitable<Relayed> relay_to_pool(Worker& worker, const config::Service& service,
                                       const config::Pool& pool, Relayed connection,
                                       std::string reason) {
  Shared& shared = worker.shared();
  sys::UniqueFd server = co_await connect_to_pool(worker, pool);
  if (!server) co_return connection;
  relay::Client client;
  client.client = peer_of(connection.fd.get());
  client.service.address = client.client.address.is_ipv4() ? service.vip4 : service.vip6;
  client.service.port = service.port;
  client.head_length = connection.head_length;
  auto opening = relay::opening(pool.announce, client, connection.received);
  shared.stats.relayed(reason);
  spdlog::debug("{} is relayed: {}", client.client.str(), reason);
  const Counted relaying(shared.stats.relaying);
  const relay::Traffic traffic =
      co_await relay::relay(worker.io(), std::move(connection.fd), std::move(server),
                            std::move(opening), shared.config.timeouts.idle);
  shared.stats.add(Counter::kRelayedIn, traffic.to_server);
  shared.stats.add(Counter::kRelayedOut, traffic.to_client);
  co_return Relayed{};
}

}  // namespace tcpmig::dispatcher
