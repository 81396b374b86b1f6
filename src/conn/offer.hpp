// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <optional>
#include <vector>

#include <tcpmig/resume.hpp>

/// take_any_connection() in two steps, for who has something to do that may fail before the connection is his.
namespace tcpmig::conn {

struct Offer {
  TakenConnection connection;                  ///< in repair
  std::optional<std::vector<std::byte>> rest;  ///< write_rest()
};
/// nullopt: nothing comes. Throws as take_any_connection().
std::optional<Offer> receive_offer(int unix_socket);
/// False: there is nothing to serve.
bool take_offer(int unix_socket, const Offer& offer);

}  // namespace tcpmig::conn
