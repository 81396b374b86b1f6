// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include <boost/asio/io_context.hpp>
#include <nlohmann/json_fwd.hpp>

namespace tcpmig::control {

/// Answers one JSON document to each connection on a Unix stream socket (a stale socket file is replaced, the file is removed at the end).
/// The document has at least {"role": .., "node": .., "pid": .., "ready": true|false}.
class StatusServer {
 public:
  StatusServer(boost::asio::io_context& io, const std::filesystem::path& path,
               std::function<nlohmann::json()> answer);
  ~StatusServer();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Asks a running role. nullopt: nobody listens there. Waits at most one second.
std::optional<nlohmann::json> query_status(const std::filesystem::path& path);

}  // namespace tcpmig::control
