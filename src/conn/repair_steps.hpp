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
/// The same in two steps. After the first, nothing is there that a timer could send: what was sent and not acknowledged it would repeat, in repair or
/// not, after a second. So that is how a socket may wait for longer.
sys::UniqueFd begin_resume(const Snapshot& snapshot, const sys::Endpoint& here);
/// `snapshot` may lack the received bytes.
void restore_voice(int fd, const Snapshot& snapshot, const sys::Endpoint& here,
                   const Deliver& deliver, const ResumeKit* kit = nullptr);
/// It lives. `snapshot` may lack the received bytes. Throws std::system_error or std::runtime_error; it is in repair again then.
void finish_resume(int fd, const Snapshot& snapshot, const sys::Endpoint& here,
                   const Deliver& deliver);

}  // namespace tcpmig::conn
