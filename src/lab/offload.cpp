// SPDX-License-Identifier: MIT
#include "lab/offload.hpp"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

#include "sys/check.hpp"
#include "sys/unique_fd.hpp"

namespace tcpmig::lab {
namespace {

void set_feature(const std::string& device, std::uint32_t command, bool on,
                 const std::string& what) {
  const sys::UniqueFd socket(sys::check("socket", ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  ethtool_value value{command, on ? 1U : 0U};
  ifreq request{};
  device.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_data = reinterpret_cast<char*>(&value);
  sys::check("ethtool -K " + device + " " + what, ::ioctl(socket.get(), SIOCETHTOOL, &request));
}

}  // namespace

void turn_off_tx_checksum(const std::string& device) {
  set_feature(device, ETHTOOL_STXCSUM, false, "tx off");
}
void turn_on_gro(const std::string& device) { set_feature(device, ETHTOOL_SGRO, true, "gro on"); }

}  // namespace tcpmig::lab
