// SPDX-License-Identifier: MIT
#pragma once
#include <string>

namespace tcpmig::lab {

/// A small HTTP/1.1 server without a TCP listener: it takes live connections from the agent over a
/// SOCK_SEQPACKET Unix socket (SCM_RIGHTS, a pool server with `handoff`), reads the request and
/// answers "NAME serves PEER (request of N bytes)" with `X-Peer: ADDRESS:PORT`. Keep-alive as
/// HTTP/1.1 has it, as long as requests have no body. One thread; runs until SIGTERM or SIGINT;
/// returns the exit code.
int fd_server(const std::string& socket_path, const std::string& name = "fd-server");

}  // namespace tcpmig::lab
