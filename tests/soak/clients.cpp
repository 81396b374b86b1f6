// SPDX-License-Identifier: MIT
#include "soak/clients.hpp"

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cstring>
#include <deque>

#include "lab/interrupt.hpp"
#include "soak/content.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::soak {
namespace {

using std::chrono::milliseconds;

struct Request {
  std::uint64_t id = 0;
  bool post = false, last = false;
  milliseconds pause{};    ///< before it is sent
  bool with_next = false;  ///< pipelined: the next one is sent with it
};

std::string text_of(const Request& request) {
  std::string text =
      (request.post ? "POST " : "GET ") + path_of(request.id) + " HTTP/1.1\r\nHost: soak\r\n" +
      (request.last ? "Connection: close\r\n" : "") +
      (request.post ? "Content-Length: " + std::to_string(request_size(request.id)) + "\r\n" : "") +
      "\r\n";
  if (!request.post) return text;
  const std::size_t head = text.size();
  text.resize(head + request_size(request.id));
  Stream(request.id, true).fill(0, text.data() + head, text.size() - head);
  return text;
}

}  // namespace

const char* to_string(How how) {
  switch (how) {
    case How::kRefused:
      return "refused";
    case How::kReset:
      return "reset";
    case How::kEnded:
      return "ended early";
    case How::kHung:
      return "hung";
    case How::kStatus:
      return "status";
    case How::kWrong:
      return "wrong bytes";
    case How::kMixed:
      return "mixed replies";
  }
  throw std::logic_error("How");
}

struct Clients::Slot {
  sys::UniqueFd fd;
  sys::Endpoint local, vip;
  Clock::time_point begun, request_begun, idle_until;
  bool connected = false, any_byte = false, migrated = false, counted = false;
  unsigned replies = 0;
  std::deque<Request> to_send, waiting;  ///< waiting: sent, not answered yet
  std::string out;
  std::size_t out_sent = 0;
  // the reply that is being read
  std::string in;
  bool in_body = false;
  std::size_t body_size = 0, body_read = 0;
};

Clients::Clients(ClientOptions options, std::function<void(const Failure&)> failed)
    : options_(std::move(options)),
      failed_(std::move(failed)),
      epoll_(sys::check("epoll_create1", ::epoll_create1(EPOLL_CLOEXEC))),
      random_(options_.seed) {
  thread_ = std::thread([this] { work(); });
}

Clients::~Clients() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void Clients::finish() {
  finishing_ = true;
  thread_.join();
}

Clients::Totals Clients::totals() const {
  const std::lock_guard lock(mutex_);
  return totals_;
}

std::uint64_t Clients::draw(std::uint64_t low, std::uint64_t high) {
  return low + random_() % (high - low + 1);
}

void Clients::work() {
  const sys::EnterNetns inside(options_.netns);
  for (unsigned i = 0; i < options_.parallel; ++i) slots_.push_back(std::make_unique<Slot>());
  epoll_event events[128];
  auto looked = Clock::now();
  bool busy = true;
  while (!stop_ && !lab::interrupted() && (busy || !finishing_)) {
    const int count = ::epoll_wait(epoll_.get(), events, 128, 10);
    for (int i = 0; i < count; ++i)
      event(*static_cast<Slot*>(events[i].data.ptr), events[i].events);
    if (count > 0 && Clock::now() - looked < milliseconds(10)) continue;
    looked = Clock::now();
    busy = false;
    for (const auto& slot : slots_) {
      look_at_clock(*slot);
      busy = busy || slot->fd;
    }
  }
}

/// One to five requests; a third of all connections has more than one.
void Clients::plan(Slot& slot) {
  const unsigned count = draw(0, 2) == 0 ? static_cast<unsigned>(draw(2, 5)) : 1;
  for (unsigned i = 0; i < count; ++i) {
    Request request{.id = next_id_++, .post = draw(0, 3) == 0, .last = i + 1 == count};
    if (i > 0 && draw(0, 4) == 0) request.pause = milliseconds(draw(1, 1500));
    slot.to_send.push_back(request);
  }
  for (unsigned i = 0; i + 1 < count; ++i)
    slot.to_send[i].with_next = !slot.to_send[i].post && !slot.to_send[i + 1].post &&
                                slot.to_send[i + 1].pause.count() == 0 && draw(0, 3) == 0;
}

void Clients::begin(Slot& slot) {
  slot = Slot{};
  slot.begun = slot.request_begun = Clock::now();
  slot.vip = options_.vips[draw(0, options_.vips.size() - 1)];
  plan(slot);
  {
    const std::lock_guard lock(mutex_);
    ++totals_.connections;
    ++totals_.open;
  }
  const auto [address, length] = slot.vip.to_sockaddr();
  slot.fd.reset(sys::check(
      "socket", ::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  const int on = 1;
  ::setsockopt(slot.fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(slot.fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 &&
      errno != EINPROGRESS)
    return fail(slot, How::kRefused, std::strerror(errno));
  sockaddr_storage local{};
  socklen_t size = sizeof local;
  ::getsockname(slot.fd.get(), reinterpret_cast<sockaddr*>(&local), &size);
  slot.local = sys::Endpoint::from_sockaddr(local);
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.ptr = &slot;
  sys::check("epoll_ctl", ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, slot.fd.get(), &event));
}

void Clients::event(Slot& slot, std::uint32_t events) {
  if (!slot.fd) return;
  if (!slot.connected) {
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) return;
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(slot.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return fail(slot, How::kRefused, std::strerror(error));
    slot.connected = true;
    next_requests(slot);
  } else {
    send(slot);
  }
  if (slot.fd) receive(slot);
}

/// Everything that may be sent now: the next request, and those that go with it.
void Clients::next_requests(Slot& slot) {
  bool more = slot.waiting.empty();
  while (more && !slot.to_send.empty()) {
    slot.out += text_of(slot.to_send.front());
    more = slot.to_send.front().with_next;
    slot.waiting.push_back(slot.to_send.front());
    slot.to_send.pop_front();
  }
  slot.request_begun = Clock::now();
  send(slot);
}

void Clients::send(Slot& slot) {
  while (slot.out_sent < slot.out.size()) {
    const ssize_t sent = ::send(slot.fd.get(), slot.out.data() + slot.out_sent,
                                slot.out.size() - slot.out_sent, MSG_NOSIGNAL);
    if (sent < 0) return;  // EAGAIN; of an error, the following recv() tells
    slot.out_sent += static_cast<std::size_t>(sent);
  }
  slot.out.clear();
  slot.out_sent = 0;
}

void Clients::receive(Slot& slot) {
  for (;;) {
    const ssize_t got = ::recv(slot.fd.get(), buffer_.data(), buffer_.size(), 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) return fail(slot, How::kReset, std::strerror(errno));
    if (got == 0) return at_end(slot);
    slot.any_byte = true;
    slot.in.append(buffer_.data(), static_cast<std::size_t>(got));
    while (slot.fd && take(slot)) {
    }
    if (!slot.fd) return;
  }
}

/// False: more bytes are needed.
bool Clients::take(Slot& slot) {
  if (!slot.in_body) return take_head(slot);
  const Request& request = slot.waiting.front();
  const std::size_t count = std::min(slot.in.size(), slot.body_size - slot.body_read);
  const std::string_view part = std::string_view(slot.in).substr(0, count);
  if (const auto at = Stream(request.id, false).differs(slot.body_read, part)) {
    fail(slot, How::kWrong, path_of(request.id) + " at byte " + std::to_string(*at));
    return false;
  }
  slot.in.erase(0, count);
  slot.body_read += count;
  if (slot.body_read < slot.body_size) return false;
  reply_done(slot);
  return slot.fd && !slot.in.empty();
}

bool Clients::take_head(Slot& slot) {
  if (slot.waiting.empty()) {
    if (!slot.in.empty()) fail(slot, How::kMixed, "bytes that nobody has asked for");
    return false;
  }
  const std::size_t end = slot.in.find("\r\n\r\n");
  if (end == std::string::npos) return false;
  const std::string head = slot.in.substr(0, end + 2);
  slot.in.erase(0, end + 4);
  const Request& request = slot.waiting.front();
  if (!head.starts_with("HTTP/1.1 200 ")) {
    fail(slot, How::kStatus, head.substr(0, head.find("\r\n")));
    return false;
  }
  if (header(head, "X-Id") != path_of(request.id)) {
    fail(slot, How::kMixed, "asked " + path_of(request.id) + ", answered:\n" + head);
    return false;
  }
  if (header(head, "Content-Length") != std::to_string(reply_size(request.id)) ||
      (request.post && header(head, "X-Hash") != request_hash(request.id))) {
    fail(slot, How::kWrong, "a head for " + path_of(request.id) + ":\n" + head);
    return false;
  }
  slot.migrated = header(head, "X-Peer") == slot.local.str();
  slot.in_body = true;
  slot.body_read = 0;
  slot.body_size = reply_size(request.id);
  const std::lock_guard lock(mutex_);
  if (!std::exchange(slot.counted, true)) ++(slot.migrated ? totals_.migrations : totals_.relays);
  return true;
}

void Clients::reply_done(Slot& slot) {
  const Request done = slot.waiting.front();
  slot.waiting.pop_front();
  slot.in_body = false;
  ++slot.replies;
  slot.request_begun = Clock::now();
  {
    const std::lock_guard lock(mutex_);
    ++totals_.requests;
    totals_.posts += done.post ? 1 : 0;
    totals_.bytes += slot.body_size;
  }
  if (done.last || !slot.waiting.empty()) return;
  const milliseconds pause = slot.to_send.front().pause;
  if (pause.count() == 0) return next_requests(slot);
  slot.idle_until = Clock::now() + pause;
}

void Clients::at_end(Slot& slot) {
  if (slot.waiting.empty() && slot.to_send.empty()) return good(slot);
  fail(slot, How::kEnded,
       slot.in_body ? "after " + std::to_string(slot.body_read) + " of " +
                          std::to_string(slot.body_size) + " bytes"
                    : "before the reply");
}

void Clients::good(Slot& slot) {
  slot.fd.reset();
  const std::lock_guard lock(mutex_);
  ++totals_.good;
  --totals_.open;
}

void Clients::fail(Slot& slot, How how, const std::string& detail) {
  Failure failure{.how = how,
                  .detail = detail,
                  .client = slot.local,
                  .vip = slot.vip,
                  .begun = slot.begun,
                  .ended = Clock::now(),
                  .connected = slot.connected,
                  .post = !slot.waiting.empty() && slot.waiting.front().post,
                  .replies = slot.replies,
                  .any_byte = slot.any_byte,
                  .migrated = slot.migrated};
  if (how == How::kStatus)
    failure.status = static_cast<unsigned>(std::atoi(detail.c_str() + detail.find(' ') + 1));
  failed_(failure);  // before the close, which may change what the switch knows
  const linger at_once{1, 0};
  ::setsockopt(slot.fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  slot.fd.reset();
  slot.idle_until = Clock::now() + milliseconds(100);
  const std::lock_guard lock(mutex_);
  ++totals_.failed;
  --totals_.open;
}

void Clients::look_at_clock(Slot& slot) {
  const auto now = Clock::now();
  if (!slot.fd) {
    if (!finishing_ && now >= slot.idle_until) begin(slot);
    return;
  }
  if (slot.connected && slot.waiting.empty() && !slot.to_send.empty()) {
    if (now >= slot.idle_until) next_requests(slot);
    return;
  }
  if (now - slot.request_begun > options_.deadline)
    fail(slot, How::kHung,
         !slot.connected        ? "in connect()"
         : slot.waiting.empty() ? "waiting for the end of file"
         : slot.in_body         ? "after " + std::to_string(slot.body_read) + " of " +
                              std::to_string(slot.body_size) + " bytes"
         : !slot.out.empty() ? "request not sent"
                             : "waiting for the reply");
}

}  // namespace tcpmig::soak
