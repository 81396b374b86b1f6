// SPDX-License-Identifier: MIT
#pragma once
#include <boost/asio/awaitable.hpp>

#include "dispatcher/worker.hpp"

namespace tcpmig::dispatcher {

/// One client from accept() to the transfer or to an answer of our own.
boost::asio::awaitable<void> serve(Worker& worker, sys::UniqueFd fd, const config::Service& service,
                                   std::uint64_t accepted_ns);

}  // namespace tcpmig::dispatcher
