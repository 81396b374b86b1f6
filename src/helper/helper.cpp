// SPDX-License-Identifier: MIT
#include "helper/helper.hpp"

#include <linux/capability.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <system_error>
#include <thread>

#include <spdlog/spdlog.h>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/thread_pool.hpp>

#include "helper/askers.hpp"
#include "helper/operations.hpp"
#include "helper/session.hpp"
#include "sys/aside.hpp"
#include "sys/capability.hpp"
#include "sys/check.hpp"
#include "sys/errors.hpp"
#include "sys/role_lock.hpp"

namespace tcpmig::helper {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;

constexpr int kBacklog = 64;
constexpr std::chrono::milliseconds kPause{100};

/// The path, for as long as this lives: locked against a second start; nobody gets in before it is open.
class Place {
 public:
  Place(const fs::path& path, const Askers& askers);
  ~Place();
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  [[nodiscard]] int listener() const noexcept { return listener_.get(); }
  void open();
  void remove() noexcept;

 private:
  void lock();
  fs::path path_, lock_path_;
  sys::UniqueFd lock_;
  sys::UniqueFd listener_;
};

void Place::lock() {
  auto locked = sys::try_lock(lock_path_);
  if (!locked)
    throw sys::AlreadyRunning("a repair helper listens at " + path_.string() +
                              " already: stop it first, or name another path with --socket");
  lock_ = std::move(*locked);
}

Place::Place(const fs::path& path, const Askers& askers)
    : path_(path), lock_path_(path.string() + ".lock") {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.string().size() >= sizeof address.sun_path)
    throw sys::WrongSetup("--socket takes a path of at most 107 bytes");
  path.string().copy(address.sun_path, sizeof address.sun_path - 1);
  if (path.has_parent_path()) fs::create_directories(path.parent_path());
  lock();
  if (const auto status = fs::symlink_status(path); fs::is_socket(status))
    fs::remove(path);  // of one that was killed: nobody has the lock
  else if (fs::exists(status))
    throw sys::WrongSetup(path.string() + " is there and is no socket: name another path");
  listener_.reset(
      sys::check("socket", ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
  const mode_t before = ::umask(0177);  // nobody gets in before it is told who may
  const int bound =
      ::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::umask(before);
  if (bound < 0) throw std::system_error(error, std::generic_category(), "bind " + path.string());
  if (askers.group())
    sys::check("chown " + path.string(),
               ::chown(path.c_str(), static_cast<uid_t>(-1), *askers.group()));
  sys::check("chmod " + path.string(), ::chmod(path.c_str(), askers.mode()));
}

void Place::open() { sys::check("listen " + path_.string(), ::listen(listener_.get(), kBacklog)); }

Place::~Place() { remove(); }

void Place::remove() noexcept {
  std::error_code ignored;
  if (listener_) fs::remove(path_, ignored);
  fs::remove(lock_path_, ignored);
}

class Server {
 public:
  Server(asio::io_context& io, const Options& options, const Askers& askers, const Place& place)
      : askers_(askers), operations_(options), io_(io), listener_(io, ::dup(place.listener())) {}
  /// Before the first thread: they inherit what is left.
  void drop_rights() const;
  /// Until `io` is stopped. False: a client keeps a thread in a system call, which nobody can end.
  [[nodiscard]] bool run();

 private:
  void wait_for_clients();
  void accept_all();
  void receive(sys::UniqueFd client);
  void dismiss(sys::UniqueFd client, int error);

  const Askers& askers_;
  const Operations operations_;
  Slots slots_;
  sys::Aside aside_;
  asio::io_context& io_;
  asio::posix::stream_descriptor listener_;
  std::unique_ptr<asio::thread_pool> threads_;
};

void Server::drop_rights() const {
  if (!operations_.can_tell_ends())
    spdlog::warn("no CAP_NET_RAW: a connection whose peer has closed cannot be resumed");
  sys::keep_only_capability(CAP_NET_ADMIN);
}

bool Server::run() {
  // One thread for each client: what a system call does with a stranger's socket may take as long as the stranger likes (he may hold its lock).
  threads_ = std::make_unique<asio::thread_pool>(Slots::kAll);
  wait_for_clients();
  io_.run();
  using namespace std::chrono;
  for (const auto end = steady_clock::now() + seconds(2); steady_clock::now() < end;) {
    if (slots_.all_free()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

void Server::wait_for_clients() {
  listener_.async_wait(asio::posix::stream_descriptor::wait_read, [this](const auto& error) {
    if (error) return;
    accept_all();
    wait_for_clients();
  });
}

void Server::accept_all() {
  for (;;) {
    aside_.run();
    if (!aside_.is_free()) return std::this_thread::sleep_for(kPause);
    sys::UniqueFd client(::accept4(listener_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC));
    if (client) {
      receive(std::move(client));
      continue;
    }
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)  // out of descriptors
      std::this_thread::sleep_for(kPause);
    return;
  }
}

/// He may have sent descriptors that take long to close.
void Server::dismiss(sys::UniqueFd client, int error) {
  answer(client.get(), error);
  aside_.close(std::move(client));
}

void Server::receive(sys::UniqueFd client) {
  const uid_t user = user_of(client.get());
  if (!askers_.may_ask(client.get())) {
    spdlog::debug("user {} may not ask", user);
    return dismiss(std::move(client), EACCES);
  }
  if (!slots_.take(user)) return dismiss(std::move(client), EBUSY);
  asio::post(*threads_, [this, user, fd = client.release()] {
    const sys::UniqueFd owned(fd);
    if (const int error = serve(fd, operations_))
      spdlog::debug("user {}: {}", user, std::generic_category().message(error));
    slots_.give_back(user);
  });
}

}  // namespace

void run(const Options& options) {
  if (!sys::has_capability(CAP_NET_ADMIN))
    throw sys::MissingFeature("repair-helper takes CAP_NET_ADMIN: run it with sudo");
  const Askers askers(options);
  asio::io_context io;
  asio::signal_set signals(io, SIGTERM, SIGINT);  // before there is something to leave behind
  signals.async_wait([&io](const auto&, int) { io.stop(); });
  Place place(options.socket, askers);
  Server server(io, options, askers, place);
  server.drop_rights();
  place.open();
  spdlog::info("listening at {}", options.socket.string());
  const bool is_free = server.run();
  spdlog::info("told to end");
  if (is_free) return;
  place.remove();
  ::_exit(0);
}

}  // namespace tcpmig::helper
