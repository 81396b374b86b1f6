// SPDX-License-Identifier: MIT
#pragma once
#include <string>

namespace tcpmig {

/// Names the socket of `tcpmig repair-helper`, for the whole process: from then on freeze(), thaw(), settle() and repair_resume() ask it for what
/// the kernel refuses to this process (EPERM), so that a program without CAP_NET_ADMIN moves its connections. What this process may do itself it
/// does itself. To be called before a FreezeKit is made, which finds out whether connections can be frozen. From any thread.
/// Each question is a connection of its own (30 to 60 us), so a helper that was started again is found, and a forked child may ask as well. A helper
/// that is not there is waited for, up to 0.3 s, and up to 3 s where a connection would be left in repair mode.
/// The helper gets the descriptor of the connection: name a path where nobody but those you trust can put a socket.
/// `path`: 1 to 107 bytes, absolute or of the working directory; empty: no helper any more. Throws std::invalid_argument for another one. That
/// there is no helper is no error here: FreezeKit::warnings() says so.
void set_repair_helper(const std::string& path);

}  // namespace tcpmig
