// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>

namespace tcpmig::agent {

/// What the agent itself has done, besides the counters of its programs (bpf/shared/node_maps.h). X(name, text).
#define TCPMIG_AGENT_COUNTERS(X)                                                           \
  X(confirmed, "transfers whose child was seen: RESUMED")                                  \
  X(refused, "transfers answered with REFUSED")                                            \
  X(answered_again, "repeats answered from the tombstone")                                 \
  X(revoked, "connections ended because the switch has given them to another node")        \
  X(aborted, "transfers forbidden by ABORT")                                               \
  X(child_gone_early, "children that had come and gone before the first look")             \
  X(child_looked_for_again, "children that were not there at the first look")              \
  X(late_children_ended, "children of transfers that had been refused, ended")             \
  X(cut_short, "connections ended because a former run had not delivered everything")      \
  X(through_tun, "transfers opened through the TUN (several parts, an old four-tuple)")    \
  X(handed_over, "connections given to a program by descriptor")                           \
  X(tickets, "tickets: connections to a listener that make its program ask for one")       \
  X(tickets_untaken, "tickets that no program has asked with")                             \
  X(strangers, "connections that were taken for tickets and are none")                     \
  X(askers_dropped, "programs of one user that asked while too many of his already did")   \
  X(not_taken, "connections that their program did not take, or died before it had")       \
  X(whole_taken, "connections that another server has given away, taken by a program")     \
  X(migrated, "connections that their program has given to another server")                \
  X(migrate_returned, "connections given away that came back: refused, or no answer")      \
  X(migrate_unknown, "connections given away of which nobody knows who has them")          \
  X(migrate_recovered, "connections taken up that a former run was giving away")           \
  X(migrate_not_tcp, "not given away: no TCP connection")                                  \
  X(migrate_not_ours, "not given away: no connection that was opened here")                \
  X(migrate_no_target, "not given away: the target is no other server with a handoff")     \
  X(migrate_lost, "connections given away that the target has broken: refused too late")   \
  X(migrate_too_large, "not given away: the blob or the queues are too large")             \
  X(migrate_bad_blob, "not given away: the blob is no sealed memory, or cannot be read")   \
  X(migrate_busy, "not given away: it is being moved already, or not now")                 \
  X(migrate_not_frozen, "not given away: it has a property that cannot be carried")        \
  X(late_answers, "answers to a transfer of ours that is over")                            \
  X(sent_on, "packets sent after a connection that has left")                              \
  X(old_sockets_ended, "sockets of an earlier connection with the same four-tuple, ended") \
  X(parts_asked, "missing parts asked for")                                                \
  X(incomplete, "transfers whose parts did not come in time")                              \
  X(held, "early packets held")                                                            \
  X(replayed, "held packets given to their connection")                                    \
  X(handed_back, "early packets given back to who wanted to move their connection")        \
  X(captures_dropped, "captured packets not kept: damaged, or no room")                    \
  X(captures_lost, "packets that a lock has dropped without a copy: they came too fast")   \
  X(got_back, "packets of clients that a refusing server has given back")                  \
  X(hold_full, "early packets dropped: no room")                                           \
  X(hold_expired, "early packets dropped: their connection did not come")                  \
  X(ended_answered, "packets of connections that have ended, left to the kernel's RST")    \
  X(orphans_reset, "packets of flows that nobody opens, left to the kernel's RST")         \
  X(late_segments, "segments of a former owner given to their connection")                 \
  X(late_segments_dropped, "segments of a former owner without a connection")              \
  X(gone, "ended flows told to the switch")                                                \
  X(gone_dropped, "ended flows not told to the switch: too many waited")                   \
  X(renewed, "leases renewed")                                                             \
  X(announcements, "times that all live flows were announced to a switch without a table") \
  X(stray_syn, "SYNs that found no socket")                                                \
  X(swept, "tombstones forgotten")                                                         \
  X(bad_datagrams, "control datagrams malformed, of another version, or for another node") \
  X(bad_tags, "control datagrams with a wrong tag or key")                                 \
  X(replays, "control datagrams whose number was seen before")                             \
  X(send_failed, "control datagrams that could not be sent")                               \
  X(tun_full, "packets that the TUN did not take")                                         \
  X(stalled, "connections ended because what was left to deliver found no room in time")

struct Counters {
#define X(name, text) std::uint64_t name = 0;
  TCPMIG_AGENT_COUNTERS(X)
#undef X
};

}  // namespace tcpmig::agent
