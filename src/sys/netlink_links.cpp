// SPDX-License-Identifier: MIT
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>

#include <system_error>

#include "sys/netlink.hpp"
#include "sys/netlink_message.hpp"

namespace tcpmig::sys {
namespace {

Link parse_link(const nlmsghdr& message) {
  const auto& header = *static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(&message));
  Link link{.index = header.ifi_index,
            .name = {},
            .up = (header.ifi_flags & IFF_UP) != 0,
            .mtu = 0,
            .mac = {}};
  for_each_attribute(message, sizeof(ifinfomsg), [&](int type, const nlattr& attribute) {
    if (type == IFLA_IFNAME) link.name = attribute_string(attribute);
    if (type == IFLA_MTU) link.mtu = attribute_u32(attribute);
    if (type == IFLA_ADDRESS && mnl_attr_get_payload_len(&attribute) == 6)
      link.mac.assign(static_cast<const char*>(mnl_attr_get_payload(&attribute)), 6);
  });
  return link;
}

/// Without counters, which cost the kernel most of the time.
void skip_statistics(NetlinkRequest& request) {
  request.put_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
}

/// RTM_NEWLINK of this name and kind; `data` adds what the kind wants to know.
void new_link(NetlinkRequest& request, const std::string& name, const std::string& kind,
              const std::function<void()>& data) {
  request.header<ifinfomsg>();
  request.put_string(IFLA_IFNAME, name);
  request.nest(IFLA_LINKINFO, [&] {
    request.put_string(IFLA_INFO_KIND, kind);
    if (data) request.nest(IFLA_INFO_DATA, data);
  });
}

Link existing(Netlink& netlink, const std::string& name, const std::string& what) {
  if (auto link = netlink.find_link(name)) return *link;
  throw std::system_error(ENODEV, std::generic_category(), what);
}

}  // namespace

Netlink::Netlink() : fd_(open_netlink(NETLINK_ROUTE)) {}

std::optional<Link> Netlink::find_link(const std::string& name) {
  NetlinkRequest request(RTM_GETLINK, 0);
  request.header<ifinfomsg>();
  request.put_string(IFLA_IFNAME, name);
  skip_statistics(request);
  std::optional<Link> found;
  const auto outcome = exchange(fd_.get(), request, ++sequence_,
                                [&](const nlmsghdr& message) { found = parse_link(message); });
  succeeded("find link " + name, outcome, {ENODEV});
  return found;
}

std::vector<Link> Netlink::links() {
  NetlinkRequest request(RTM_GETLINK, NLM_F_DUMP);
  request.header<ifinfomsg>();
  skip_statistics(request);
  return dump<Link>(fd_.get(), "list links", request, sequence_, parse_link);
}

void Netlink::create_veth(const std::string& name, const std::string& peer, int peer_netns_fd) {
  NetlinkRequest request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  new_link(request, name, "veth", [&] {
    request.nest(VETH_INFO_PEER, [&] {
      request.header<ifinfomsg>();
      request.put_string(IFLA_IFNAME, peer);
      if (peer_netns_fd >= 0)
        request.put_u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(peer_netns_fd));
    });
  });
  succeeded("create veth " + name + " with peer " + peer,
            exchange(fd_.get(), request, ++sequence_));
}

void Netlink::create_bridge(const std::string& name) {
  NetlinkRequest request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  new_link(request, name, "bridge", {});
  succeeded("create bridge " + name, exchange(fd_.get(), request, ++sequence_));
}

bool Netlink::remove_link(const std::string& name) {
  NetlinkRequest request(RTM_DELLINK, 0);
  request.header<ifinfomsg>();
  request.put_string(IFLA_IFNAME, name);
  return succeeded("remove link " + name, exchange(fd_.get(), request, ++sequence_), {ENODEV});
}

void Netlink::move_link(const std::string& name, int netns_fd) {
  NetlinkRequest request(RTM_SETLINK, 0);
  request.header<ifinfomsg>();
  request.put_string(IFLA_IFNAME, name);
  request.put_u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(netns_fd));
  succeeded("move link " + name + " to a network namespace",
            exchange(fd_.get(), request, ++sequence_));
}

void Netlink::rename_link(const std::string& name, const std::string& new_name) {
  const std::string what = "rename link " + name + " to " + new_name;
  NetlinkRequest request(RTM_SETLINK, 0);
  request.header<ifinfomsg>().ifi_index = existing(*this, name, what).index;
  request.put_string(IFLA_IFNAME, new_name);
  succeeded(what, exchange(fd_.get(), request, ++sequence_));
}

void Netlink::set_link(const std::string& name, bool up, std::optional<std::uint32_t> mtu) {
  NetlinkRequest request(RTM_SETLINK, 0);
  auto& header = request.header<ifinfomsg>();
  header.ifi_change = IFF_UP;
  header.ifi_flags = up ? IFF_UP : 0;
  request.put_string(IFLA_IFNAME, name);
  if (mtu) request.put_u32(IFLA_MTU, *mtu);
  succeeded(
      "set link " + name + (up ? " up" : " down") + (mtu ? " mtu " + std::to_string(*mtu) : ""),
      exchange(fd_.get(), request, ++sequence_));
}

void Netlink::set_master(const std::string& name, const std::string& bridge) {
  const std::string what = "put link " + name + " into bridge " + bridge;
  NetlinkRequest request(RTM_SETLINK, 0);
  request.header<ifinfomsg>();
  request.put_string(IFLA_IFNAME, name);
  request.put_u32(IFLA_MASTER, static_cast<std::uint32_t>(existing(*this, bridge, what).index));
  succeeded(what, exchange(fd_.get(), request, ++sequence_));
}

}  // namespace tcpmig::sys
