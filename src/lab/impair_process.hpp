// SPDX-License-Identifier: MIT
#pragma once
#include <string>

/// The process that makes links bad: `tcpmig lab impair`, one a lab, in the fabric's namespace.
///
///   node: eth0 --veth-- server1.n  ( this process )  server1.b --veth-- server1 on the bridge
///
/// It copies frames between the two ends in the middle, both ways, and loses, doubles, holds back and
/// delays some of them. In user space because a kernel may have no netem. Both outer ends have their
/// transmit offloads off, so that frames are no larger than the MTU and have finished checksums.
namespace tcpmig::lab {

inline constexpr const char* kImpairRole = "impair";  ///< its status socket is the fabric's

/// The ends in the middle of the link of a node.
inline std::string node_end(const std::string& peer) { return peer + ".n"; }
inline std::string bridge_end(const std::string& peer) { return peer + ".b"; }

/// Until SIGTERM or SIGINT. What to do is in the lab's state. Returns the exit code.
int impair(const std::string& lab);

}  // namespace tcpmig::lab
