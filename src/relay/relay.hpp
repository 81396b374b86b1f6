// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>

#include "sys/address.hpp"
#include "sys/unique_fd.hpp"

/// A classic proxy's part: two connections, and every byte copied between them. For what cannot be moved.
namespace tcpmig::relay {

/// A TCP connection to `to`, non-blocking; without a descriptor when it is refused or `limit` has passed.
boost::asio::awaitable<sys::UniqueFd> connect(boost::asio::io_context& io, sys::Endpoint to,
                                              std::chrono::milliseconds limit);

struct Traffic {
  std::uint64_t to_server = 0;  ///< bytes, `opening` included
  std::uint64_t to_client = 0;
};

/// Sends `opening` to the server, then copies both ways (splice(2): the bytes stay in the kernel), no faster than the
/// receiving side takes it. The end of one direction (FIN) is passed on alone; a reset of either side resets the other;
/// `idle` without a byte ends both. Returns when both are closed. Both descriptors are non-blocking TCP sockets.
boost::asio::awaitable<Traffic> relay(boost::asio::io_context& io, sys::UniqueFd client,
                                      sys::UniqueFd server, std::vector<std::byte> opening,
                                      std::chrono::milliseconds idle);

}  // namespace tcpmig::relay
