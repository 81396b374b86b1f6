// SPDX-License-Identifier: MIT
#pragma once
#include <tcpmig/resume.hpp>

#include "sys/address.hpp"
#include "sys/unique_fd.hpp"

/// repair_resume() in two steps, for who gives the socket away in between.
namespace tcpmig::conn {

/// Everything is restored, and the socket still in repair: it has sent nothing, and to close it sends nothing. (It acknowledges what comes
/// in, as every socket in repair does.) Throws as repair_resume().
sys::UniqueFd resume_in_repair(const Snapshot& snapshot, const sys::Endpoint& here,
                               const Deliver& deliver, const ResumeKit* kit = nullptr);
/// It lives. `snapshot` may lack the received bytes. Throws std::system_error or std::runtime_error; it is in repair again then.
void finish_resume(int fd, const Snapshot& snapshot, const sys::Endpoint& here,
                   const Deliver& deliver);

}  // namespace tcpmig::conn
