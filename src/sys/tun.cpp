// SPDX-License-Identifier: MIT
#include "sys/tun.hpp"

#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <filesystem>
#include <fstream>
#include <system_error>

#include "sys/check.hpp"
#include "sys/errors.hpp"
#include "sys/netlink_message.hpp"

namespace tcpmig::sys {
namespace {

constexpr int kMtu = 65535;  // the largest packet that IP knows
constexpr int kQueueLength = 10000;

ifreq request_for(const std::string& name) {
  if (name.empty() || name.size() >= IFNAMSIZ)
    throw std::system_error(EINVAL, std::generic_category(), "TUN name '" + name + "'");
  ifreq request{};
  name.copy(request.ifr_name, name.size());
  return request;
}

UniqueFd open_device(const std::string& name) {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
    throw MissingFeature(
        "no /dev/net/tun, through which early packets and large transfers go: load the module tun "
        "(`modprobe tun`), or give the container this device");
  if (!fd) check("open /dev/net/tun", -1);
  ifreq request = request_for(name);
  request.ifr_flags = static_cast<short>(IFF_TUN | IFF_NO_PI | IFF_TUN_EXCL);
  check("create TUN " + name, ::ioctl(fd.get(), TUNSETIFF, &request));
  return fd;
}

/// One setting of the device itself below /proc/sys/net; absent where the kernel lacks the
/// protocol.
void set(const std::string& name, const std::string& family, const std::string& setting,
         const std::string& value) {
  const std::filesystem::path file = "/proc/sys/net/" + family + "/conf/" + name + "/" + setting;
  if (!std::filesystem::exists(file)) return;
  std::ofstream output(file);
  if (!(output << value << std::flush))
    throw std::system_error(errno, std::generic_category(), "set " + file.string());
}

/// Before the device is up: it gets no link-local address and asks for no router, but takes in IPv6
/// whatever the default says.
void configure_protocols(const std::string& name) {
  set(name, "ipv4", "rp_filter", "2");
  set(name, "ipv6", "addr_gen_mode", "1");  // IN6_ADDR_GEN_MODE_NONE
  set(name, "ipv6", "accept_ra", "0");
  set(name, "ipv6", "router_solicitations", "0");
  set(name, "ipv6", "disable_ipv6", "0");
}

void bring_up(const std::string& name) {
  const UniqueFd socket(check("socket", ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  ifreq request = request_for(name);
  request.ifr_mtu = kMtu;
  check("set MTU of " + name, ::ioctl(socket.get(), SIOCSIFMTU, &request));
  request.ifr_qlen = kQueueLength;
  check("set queue length of " + name, ::ioctl(socket.get(), SIOCSIFTXQLEN, &request));
  request.ifr_flags = IFF_UP;
  check("set " + name + " up", ::ioctl(socket.get(), SIOCSIFFLAGS, &request));
}

/// Reverse-path filtering, also the loose kind, drops everything that comes in on a device without
/// an IPv4 address unless the way back is through that very device (__fib_validate_source,
/// no_addr). So the TUN has one that means nothing: RFC 7600's dummy address, with scope link, so
/// that nobody takes it for a source.
void give_dummy_address(int ifindex) {
  const Address dummy = Address::parse("192.0.0.8").value();
  NetlinkRequest request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
  auto& header = request.header<ifaddrmsg>();
  header.ifa_family = AF_INET;
  header.ifa_prefixlen = 32;
  header.ifa_scope = RT_SCOPE_LINK;
  header.ifa_index = static_cast<std::uint32_t>(ifindex);
  request.put_address(IFA_LOCAL, dummy);
  const UniqueFd netlink = open_netlink(NETLINK_ROUTE);
  succeeded("add address 192.0.0.8 to the TUN", exchange(netlink.get(), request, 1));
}

int index_of(const std::string& name) {
  const unsigned index = ::if_nametoindex(name.c_str());
  if (index == 0) check("find " + name, -1);
  return static_cast<int>(index);
}

}  // namespace

Tun::Tun(const std::string& name) : fd_(open_device(name)), ifindex_(index_of(name)), name_(name) {
  configure_protocols(name);
  give_dummy_address(ifindex_);
  bring_up(name);
}

bool Tun::inject(std::span<const std::byte> packet) {
  const auto written = ::write(fd_.get(), packet.data(), packet.size());
  // EIO: somebody has set the device down
  if (written < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == EIO))
    return false;
  check("write a packet to " + name_, written);
  return true;  // a packet is taken whole or not at all
}

}  // namespace tcpmig::sys
