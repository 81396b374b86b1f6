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
/// What takes no packet: with a lock on, nothing that this does can be heard of. `snapshot` may lack the received bytes, here and below.
void restore_sent_side(int fd, const Snapshot& snapshot, const ResumeKit* kit = nullptr);
/// Then what takes packets, so there is no lock on any more.
void restore_voice(int fd, const Snapshot& snapshot, const sys::Endpoint& here,
                   const Deliver& deliver);
/// Whether the FIN of a connection that has been closed counts as sent: it is restored in repair then.
bool fin_counts_as_sent(const Snapshot& snapshot);
/// It lives. Its last step, when all is there, sets SO_REUSEADDR, which TCP_REPAIR takes away (2 while in repair, 0 afterwards): so
/// that whoever has a copy can see, without any right, whether it was finished (handover/handover.h). Throws std::system_error or
/// std::runtime_error; it is in repair again then.
void finish_resume(int fd, const Snapshot& snapshot, const sys::Endpoint& here,
                   const Deliver& deliver);

}  // namespace tcpmig::conn
