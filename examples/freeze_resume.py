#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Freezes a TCP connection and resumes it, from Python, by libtcpmig.so and ctypes alone.

Both ends are in this process, over 127.0.0.1: the server's end is frozen, encoded, ended without a packet, and made anew from
the bytes; the client's end notices nothing. On one host the old socket must go before the new one comes (they have the same
two ends), and nothing may arrive in between. Between two hosts: docs/library.md.
"""
import argparse
import ctypes
import errno
import os
import socket
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint8, c_uint16, c_uint32, c_void_p

WHOLE = 1  # enum tcpmig_scope


class Info(ctypes.Structure):  # struct tcpmig_info
    _fields_ = [(name, c_uint32) for name in ("state", "options", "rcv_nxt", "snd_una", "snd_nxt", "snd_wnd",
                                              "tsval", "ts_recent", "srtt_us")] + [
        ("mss", c_uint16), ("snd_wscale", c_uint8), ("rcv_wscale", c_uint8)]


class TcpmigError(OSError):
    pass


class Tcpmig:
    """The library; each function that fails raises TcpmigError with what tcpmig_last_error() says."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.tcpmig_last_error.restype = c_char_p
        self.library.tcpmig_version_string.restype = c_char_p
        self.library.tcpmig_frozen_snapshot.restype = c_void_p
        self.declare("kit_new", c_char_p, c_uint32, POINTER(c_void_p))
        self.declare("freeze", c_void_p, c_int, c_int, c_void_p, c_size_t, c_void_p, c_void_p, POINTER(c_void_p))
        self.declare("settle", c_void_p)
        self.declare("frozen_snapshot", c_void_p)
        self.declare("snapshot_info", c_void_p, POINTER(Info), c_size_t)
        self.declare("snapshot_encode_new", c_void_p, POINTER(c_void_p), POINTER(c_size_t))
        self.declare("snapshot_decode", c_char_p, c_size_t, POINTER(c_void_p))
        self.declare("resume", c_void_p, c_void_p, c_uint32, c_void_p, c_void_p)
        self.declare("thaw", c_void_p, c_void_p, c_void_p, c_void_p)
        for name in ("commit", "free", "kit_free", "frozen_free", "snapshot_free"):
            self.declare(name, c_void_p)

    def declare(self, name, *argtypes):
        getattr(self.library, "tcpmig_" + name).argtypes = argtypes

    def call(self, name, *arguments):
        result = getattr(self.library, "tcpmig_" + name)(*arguments)
        if isinstance(result, int) and result < 0:
            raise TcpmigError(-result, self.library.tcpmig_last_error().decode())
        return result

    def made(self, name, *arguments):
        """Of a function whose last argument is where it puts a handle."""
        handle = c_void_p()
        self.call(name, *arguments, byref(handle))
        return handle


def freeze(tcpmig, kit, connection):
    """The bytes of the connection, which then has ended here. If that fails the descriptor is raised along, as `fd`."""
    descriptor = connection.detach()
    try:
        frozen = tcpmig.made("freeze", kit, descriptor, WHOLE, None, 0, None, None)
    except TcpmigError as error:
        error.fd = descriptor
        raise
    encoded, size, info = c_void_p(), c_size_t(), Info()
    try:
        tcpmig.call("settle", frozen)
        snapshot = tcpmig.call("frozen_snapshot", frozen)
        tcpmig.call("snapshot_info", snapshot, byref(info), ctypes.sizeof(info))
        tcpmig.call("snapshot_encode_new", snapshot, byref(encoded), byref(size))
        tcpmig.call("commit", frozen)
        print(f"frozen: state {info.state}, next byte to send {info.snd_nxt}, to receive {info.rcv_nxt}, "
              f"{size.value} bytes")
        return ctypes.string_at(encoded, size.value)
    except TcpmigError as error:
        error.fd = tcpmig.call("thaw", frozen, None, None, None)
        raise
    finally:
        tcpmig.call("free", encoded)
        tcpmig.call("frozen_free", frozen)


def resume(tcpmig, encoded):
    """A new socket that goes on with the connection."""
    snapshot = tcpmig.made("snapshot_decode", encoded, len(encoded))
    try:
        return socket.socket(fileno=tcpmig.call("resume", snapshot, None, 0, None, None))
    finally:
        tcpmig.call("snapshot_free", snapshot)


def receive(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError(f"the connection has ended after {len(data)} of {size} bytes")
        data += more
    return data


def both_ways(client, server, what):
    for sender, receiver in ((client, server), (server, client)):
        data = os.urandom(50_000)
        sender.sendall(data)
        if receive(receiver, len(data)) != data:
            raise ConnectionError(f"{what}: other bytes came than were sent")
    print(f"{what}: 50000 bytes each way, equal")


def move_once(tcpmig):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server = listener.accept()[0]
    client.settimeout(10)
    server.settimeout(10)
    both_ways(client, server, "before")
    client.sendall(b"not read yet")
    kit = tcpmig.made("kit_new", None, 0)
    encoded = freeze(tcpmig, kit, server)
    tcpmig.call("kit_free", kit)
    server = resume(tcpmig, encoded)
    server.settimeout(10)
    print(f"resumed: {server.getsockname()} from {server.getpeername()}")
    if receive(server, 12) != b"not read yet":
        raise ConnectionError("what was not read before the freeze is missing")
    both_ways(client, server, "after")
    server.close()
    if client.recv(1) != b"":
        raise ConnectionError("more came than was sent")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", default="libtcpmig.so.0", help="path of the library (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        tcpmig = Tcpmig(arguments.library)
        print("libtcpmig", tcpmig.library.tcpmig_version_string().decode())
        move_once(tcpmig)
    except OSError as error:
        hint = " (run it as root)" if error.errno == errno.EPERM else ""
        print(f"freeze_resume.py: {error}{hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
