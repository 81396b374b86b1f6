// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>

#include "dispatcher/worker.hpp"

namespace tcpmig::dispatcher {

/// A connection that stays here, with what its client has sent so far.
struct Relayed {
  sys::UniqueFd fd;
  std::vector<std::byte> received;
  std::size_t head_length = 0;  ///< of the first request
};

/// Relays it to a server of the pool, to the end of the connection: the first that accepts, in the order of the pool's
/// algorithm. `reason`: why it is not moved; counted. When none accepts, the connection comes back.
boost::asio::awaitable<Relayed> relay_to_pool(Worker& worker, const config::Service& service,
                                              const config::Pool& pool, Relayed connection,
                                              std::string reason);

}  // namespace tcpmig::dispatcher
