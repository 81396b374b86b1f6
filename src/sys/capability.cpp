// SPDX-License-Identifier: MIT
#include "sys/capability.hpp"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "sys/check.hpp"

namespace tcpmig::sys {

bool has_capability(unsigned capability) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
  if (::syscall(SYS_capget, &header, data.data()) < 0) return false;
  return (data[capability / 32].effective >> (capability % 32) & 1U) != 0;
}

void keep_only_capability(unsigned capability) {
  check("prctl PR_SET_NO_NEW_PRIVS", ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  check("prctl PR_CAP_AMBIENT", ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
  for (unsigned other = 0; ::prctl(PR_CAPBSET_READ, other, 0, 0, 0) >= 0; ++other)
    if (other != capability) ::prctl(PR_CAPBSET_DROP, other, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
  auto& word = data[capability / 32];
  word.effective = word.permitted = 1U << (capability % 32);
  check("capset", ::syscall(SYS_capset, &header, data.data()));
}

}  // namespace tcpmig::sys
