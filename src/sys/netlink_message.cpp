// SPDX-License-Identifier: MIT
#include "sys/netlink_message.hpp"

#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <system_error>

#include "sys/check.hpp"

namespace tcpmig::sys {
namespace {

constexpr std::size_t kReceiveSize = 32768;  // the kernel makes dump parts of at most this size
constexpr int kReplyDeadlineSeconds =
    10;  // the kernel answers while we send: a longer silence is a bug

void enough_room(bool put) {
  if (!put) throw std::length_error("netlink request too large");
}

void walk(std::span<const std::byte> attributes, const AttributeVisitor& visit) {
  while (!attributes.empty()) {
    const auto* attribute = reinterpret_cast<const nlattr*>(attributes.data());
    if (!mnl_attr_ok(attribute, static_cast<int>(attributes.size()))) return;
    visit(mnl_attr_get_type(attribute), *attribute);
    attributes =
        attributes.subspan(std::min<std::size_t>(MNL_ALIGN(attribute->nla_len), attributes.size()));
  }
}

/// The kernel's own sentence (NLMSGERR_ATTR_MSG) behind an error.
std::string explanation_of(const nlmsghdr& message) {
  if ((message.nlmsg_flags & NLM_F_ACK_TLVS) == 0) return {};
  const auto* error = static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(&message));
  std::size_t offset = sizeof(nlmsgerr);
  if ((message.nlmsg_flags & NLM_F_CAPPED) == 0) offset += error->msg.nlmsg_len - sizeof(nlmsghdr);
  std::string text;
  for_each_attribute(message, offset, [&](int type, const nlattr& attribute) {
    if (type == NLMSGERR_ATTR_MSG) text = attribute_string(attribute);
  });
  return text;
}

/// One exchange: replies are fed in until the kernel has said its last.
class Conversation {
 public:
  /// `one`: the first message with data is the last.
  Conversation(std::uint32_t sequence, bool one, const std::function<void(const nlmsghdr&)>& visit)
      : sequence_(sequence), one_(one), visit_(visit) {}

  void take(std::span<const char> datagram) {
    int left = static_cast<int>(datagram.size());
    const auto* message = reinterpret_cast<const nlmsghdr*>(datagram.data());
    for (; !finished_ && mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
      if (message->nlmsg_seq == sequence_) take_message(*message);
  }
  [[nodiscard]] bool finished() const noexcept { return finished_; }
  [[nodiscard]] const NetlinkOutcome& outcome() const noexcept { return outcome_; }

 private:
  void take_message(const nlmsghdr& message) {
    if ((message.nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted_ = true;
    if (message.nlmsg_type == NLMSG_ERROR || message.nlmsg_type == NLMSG_DONE)
      finish(message);
    else if (message.nlmsg_type >= NLMSG_MIN_TYPE && visit_) {
      visit_(message);
      finished_ = one_;
    }
  }

  /// Both begin with an int, 0 or -errno (in DONE it may be absent).
  void finish(const nlmsghdr& message) {
    int error = 0;
    if (mnl_nlmsg_get_payload_len(&message) >= sizeof error)
      std::memcpy(&error, mnl_nlmsg_get_payload(&message), sizeof error);
    finished_ = true;
    outcome_.error = error < 0 ? -error : 0;
    if (message.nlmsg_type == NLMSG_ERROR) outcome_.explanation = explanation_of(message);
    if (outcome_.error == 0 && interrupted_) outcome_.error = EINTR;
  }

  std::uint32_t sequence_;
  bool one_;
  const std::function<void(const nlmsghdr&)>& visit_;
  bool finished_ = false;
  bool interrupted_ = false;
  NetlinkOutcome outcome_;
};

/// One datagram; the sender must be the kernel (port id 0).
std::size_t receive(int fd, std::span<char> buffer) {
  sockaddr_nl sender{};
  iovec part{.iov_base = buffer.data(), .iov_len = buffer.size()};
  msghdr header{};
  header.msg_name = &sender;
  header.msg_namelen = sizeof sender;
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  ssize_t size = 0;
  do {
    size = ::recvmsg(fd, &header, 0);
  } while (size < 0 && errno == EINTR);
  check("receive from netlink", size);
  if ((header.msg_flags & MSG_TRUNC) != 0)
    throw std::system_error(EMSGSIZE, std::generic_category(), "receive from netlink");
  return sender.nl_pid == 0 ? static_cast<std::size_t>(size) : 0;
}

}  // namespace

NetlinkRequest::NetlinkRequest(std::uint16_t type, std::uint16_t flags)
    : message_(mnl_nlmsg_put_header(buffer_.data())) {
  message_->nlmsg_type = type;
  message_->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
}

void NetlinkRequest::put(std::uint16_t type, std::span<const std::byte> value) {
  enough_room(mnl_attr_put_check(message_, kSize, type, value.size(), value.data()));
}

void NetlinkRequest::put_u32(std::uint16_t type, std::uint32_t value) {
  put(type, std::as_bytes(std::span(&value, 1)));
}

void NetlinkRequest::put_string(std::uint16_t type, const std::string& value) {
  put(type, std::as_bytes(std::span(value.c_str(), value.size() + 1)));
}

void NetlinkRequest::put_address(std::uint16_t type, const Address& address) {
  const abi::ip_address raw = address.raw();
  const auto bytes = std::as_bytes(std::span(raw.bytes));
  put(type, address.is_ipv4() ? bytes.last(sizeof(in_addr)) : bytes);
}

void NetlinkRequest::nest(std::uint16_t type, const std::function<void()>& inside) {
  nlattr* start = mnl_attr_nest_start_check(message_, kSize, type);
  enough_room(start != nullptr);
  inside();
  mnl_attr_nest_end(message_, start);
}

void for_each_attribute(const nlmsghdr& message, std::size_t offset,
                        const AttributeVisitor& visit) {
  const auto* payload = static_cast<const std::byte*>(mnl_nlmsg_get_payload(&message));
  const std::size_t size = mnl_nlmsg_get_payload_len(&message);
  const std::size_t start = std::min<std::size_t>(MNL_ALIGN(offset), size);
  walk({payload + start, size - start}, visit);
}

void for_each_nested(const nlattr& outer, const AttributeVisitor& visit) {
  walk({static_cast<const std::byte*>(mnl_attr_get_payload(&outer)),
        mnl_attr_get_payload_len(&outer)},
       visit);
}

Address attribute_address(const nlattr& attribute) {
  in_addr v4{};
  in6_addr v6{};
  const std::size_t length = mnl_attr_get_payload_len(&attribute);
  if (length == sizeof v4) {
    std::memcpy(&v4, mnl_attr_get_payload(&attribute), sizeof v4);
    return Address::from_v4(v4);
  }
  if (length != sizeof v6) return {};
  std::memcpy(&v6, mnl_attr_get_payload(&attribute), sizeof v6);
  return Address::from_v6(v6);
}

std::uint32_t attribute_u32(const nlattr& attribute) {
  std::uint32_t value = 0;
  if (mnl_attr_get_payload_len(&attribute) != sizeof value) return 0;
  std::memcpy(&value, mnl_attr_get_payload(&attribute), sizeof value);
  return value;
}

std::string attribute_string(const nlattr& attribute) {
  return mnl_attr_validate(&attribute, MNL_TYPE_NUL_STRING) == 0 ? mnl_attr_get_str(&attribute)
                                                                 : "";
}

UniqueFd open_netlink(int protocol) {
  UniqueFd fd(
      check("open a netlink socket", ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)));
  const int on = 1;
  for (const int option : {NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK})
    check("setsockopt SOL_NETLINK", ::setsockopt(fd.get(), SOL_NETLINK, option, &on, sizeof on));
  const timeval deadline{.tv_sec = kReplyDeadlineSeconds, .tv_usec = 0};
  check("setsockopt SO_RCVTIMEO",
        ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline));
  return fd;
}

namespace {

NetlinkOutcome converse(int fd, nlmsghdr* message, Conversation conversation) {
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  check("send to netlink", ::sendto(fd, message, message->nlmsg_len, 0,
                                    reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel));
  const auto memory = std::make_unique_for_overwrite<char[]>(kReceiveSize);
  const std::span buffer(memory.get(), kReceiveSize);
  while (!conversation.finished()) conversation.take(buffer.first(receive(fd, buffer)));
  return conversation.outcome();
}

}  // namespace

NetlinkOutcome exchange(int fd, NetlinkRequest& request, std::uint32_t sequence,
                        const std::function<void(const nlmsghdr&)>& visit) {
  nlmsghdr* message = request.message();
  message->nlmsg_seq = sequence;
  // NLM_F_DUMP is two bits, one of which is also NLM_F_EXCL of the requests that make something
  if ((message->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP) message->nlmsg_flags |= NLM_F_ACK;
  return converse(fd, message, Conversation(sequence, false, visit));
}

NetlinkOutcome ask(int fd, NetlinkRequest& request, std::uint32_t sequence,
                   const std::function<void(const nlmsghdr&)>& visit) {
  request.message()->nlmsg_seq = sequence;
  return converse(fd, request.message(), Conversation(sequence, true, visit));
}

bool succeeded(const std::string& what, const NetlinkOutcome& outcome,
               std::initializer_list<int> tolerated) {
  if (outcome.error == 0) return true;
  if (std::ranges::find(tolerated, outcome.error) != tolerated.end()) return false;
  const std::string why = outcome.explanation.empty() ? "" : " (" + outcome.explanation + ")";
  throw std::system_error(outcome.error, std::generic_category(), what + why);
}

}  // namespace tcpmig::sys
