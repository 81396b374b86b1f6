// SPDX-License-Identifier: MIT
#include "control/status_socket.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <chrono>
#include <cstring>
#include <string>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <nlohmann/json.hpp>

#include "sys/unique_fd.hpp"

namespace tcpmig::control {
namespace asio = boost::asio;
using Protocol = asio::local::stream_protocol;

struct StatusServer::State {
  Protocol::acceptor acceptor;
  std::filesystem::path path;
  std::function<nlohmann::json()> answer;
};

namespace {

asio::awaitable<void> reply(Protocol::socket socket, std::string text) {
  boost::system::error_code ignored;  // the asker may be gone
  co_await asio::async_write(socket, asio::buffer(text),
                             asio::redirect_error(asio::use_awaitable, ignored));
}

asio::awaitable<void> accept_loop(Protocol::acceptor& acceptor,
                                  const std::function<nlohmann::json()>& answer) {
  asio::steady_timer pause(acceptor.get_executor());
  for (;;) {
    boost::system::error_code error;
    Protocol::socket socket =
        co_await acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted) co_return;
    if (error) {  // no descriptor left, above all
      pause.expires_after(std::chrono::milliseconds(100));
      co_await pause.async_wait(asio::use_awaitable);
      continue;
    }
    asio::co_spawn(acceptor.get_executor(), reply(std::move(socket), answer().dump() + "\n"),
                   asio::detached);
  }
}

}  // namespace

StatusServer::StatusServer(asio::io_context& io, const std::filesystem::path& path,
                           std::function<nlohmann::json()> answer) {
  std::filesystem::create_directories(path.parent_path());
  std::filesystem::remove(path);
  state_.reset(new State{Protocol::acceptor(io, Protocol::endpoint(path.string())), path,
                         std::move(answer)});
  asio::co_spawn(io, accept_loop(state_->acceptor, state_->answer), asio::detached);
}

StatusServer::~StatusServer() {
  boost::system::error_code ignored;
  state_->acceptor.close(ignored);
  std::error_code also_ignored;
  std::filesystem::remove(state_->path, also_ignored);
}

std::optional<nlohmann::json> query_status(const std::filesystem::path& path) {
  using namespace std::chrono;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.string().size() >= sizeof address.sun_path) return std::nullopt;
  std::strcpy(address.sun_path, path.c_str());
  const sys::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    return std::nullopt;
  const auto deadline = steady_clock::now() + seconds(1);
  std::string text;
  std::array<char, 16384> buffer{};
  for (;;) {
    const auto left = duration_cast<milliseconds>(deadline - steady_clock::now()).count();
    pollfd waiting{fd.get(), POLLIN, 0};
    if (left <= 0 || ::poll(&waiting, 1, static_cast<int>(left)) <= 0) return std::nullopt;
    const ssize_t n = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
    if (n < 0) return std::nullopt;
    if (n == 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  nlohmann::json document = nlohmann::json::parse(text, nullptr, false);
  if (document.is_discarded()) return std::nullopt;
  return document;
}

}  // namespace tcpmig::control
