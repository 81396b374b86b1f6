// SPDX-License-Identifier: MIT
#include "switch/datapath.hpp"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "sys/check.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::steering {

std::string driver_of(const std::string& interface) {
  const sys::UniqueFd socket(
      sys::check("socket for ethtool", ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  ethtool_drvinfo info{};
  info.cmd = ETHTOOL_GDRVINFO;
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_data = reinterpret_cast<char*>(&info);
  if (::ioctl(socket.get(), SIOCETHTOOL, &request) < 0) return {};
  return std::string(info.driver, ::strnlen(info.driver, sizeof info.driver));
}

std::vector<std::string> interfaces(const config::Switch& self) {
  std::vector<std::string> all = self.clients;
  all.insert(all.end(), self.nodes.begin(), self.nodes.end());
  return all;
}

config::Datapath preferred(const config::Switch& self, const std::vector<std::string>& drivers) {
  if (self.datapath != config::Datapath::kAuto) return self.datapath;
  const bool veth = std::find(drivers.begin(), drivers.end(), "veth") != drivers.end();
  return veth ? config::Datapath::kTc : config::Datapath::kXdp;
}

std::string to_string(config::Datapath datapath) {
  switch (datapath) {
    case config::Datapath::kAuto:
      return "auto";
    case config::Datapath::kTc:
      return "tc";
    case config::Datapath::kXdp:
      return "xdp";
  }
  throw std::logic_error("datapath");
}

}  // namespace tcpmig::steering
