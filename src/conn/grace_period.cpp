// SPDX-License-Identifier: MIT
#include "conn/grace_period.hpp"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tcpmig::conn {

bool wait_for_grace_period() noexcept {
  return ::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0;
}

}  // namespace tcpmig::conn
