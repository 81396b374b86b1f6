# SPDX-License-Identifier: MIT
"""The examples, built from an installation and run on two hosts, with a client that checks every byte."""
import array
import errno
import os
import pathlib
import socket
import struct
import sys
import tempfile
import time
import unittest

from support import BUILD, SIGNAL_MOVE, DEADLINE, Cluster, Hosts, PackageTest, receive, run, skip

SERVICE = {"4": "192.0.2.10", "6": "2001:db8::10"}
CONTROL = ("10.92.2.2", 7000)


class Roaming(PackageTest):
    def test_an_answer_moves_back_and_forth_between_two_servers(self):
        cluster = Cluster(self, self.installation)
        program = self.installation.example("roaming.cpp")
        self.installation.root.chmod(0o755)
        servers = {1: cluster.start(1, program, "server2"), 2: cluster.start(2, program, "server1")}
        for server in servers.values():
            server.expect("ready")
        for address in ("203.0.113.10", "2001:db8:113::10"):
            client = cluster.connect(address)
            client.sendall(b"GET /64 HTTP/1.1\r\nHost: x\r\n\r\n")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            received = bytearray()
            for move in range(4):
                received += receive(client, 8 << 20)
                for server in servers.values():
                    os.kill(child_of(server.pid), SIGNAL_MOVE)
            received += receive(client, (64 << 20) - len(received))
            self.assertEqual(client.recv(1), b"")
            for i in list(range(0, len(received), 4099)) + [len(received) - 1]:
                self.assertEqual(received[i], (i * 2654435761 >> 24) & 255, f"byte {i}")
            servers[1].expect("goes on at byte")
            servers[2].expect("goes on at byte")

    def test_usage(self):
        with self.assertRaisesRegex(AssertionError, "exit code 2\nusage: "):
            run(self.installation.example("roaming.cpp"), env=self.installation.environment)
        with self.assertRaisesRegex(AssertionError, "exit code 1\n.*No such file"):
            run(self.installation.example("roaming.cpp"), "/nonexistent/socket", "agent", "node",
                env=self.installation.environment)


def child_of(pid):
    """The program that `tcpmig lab exec` waits for."""
    return int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


class Echo(PackageTest):
    def serve(self, program, family="4", mode="", command=None):
        """Both processes and a client that has talked to the first."""
        self.hosts = Hosts(self, self.installation, mode)
        program = self.installation.example(program)
        nat = mode == "nat"
        self.adopting = self.hosts.start("b", program, "adopt", *CONTROL, *(["10.92.2.2"] if nat else []))
        self.adopting.expect("ready")
        self.serving = self.hosts.start("a", program, "serve", "10.92.1.2" if nat else SERVICE[family], 7, *CONTROL,
                                        command or self.hosts.move_command())
        self.serving.expect("ready")
        client = self.hosts.connect(SERVICE[family], 7)
        self.echo(client)
        return client

    def moves(self, program, family="4", mode=""):
        client = self.serve(program, family, mode)
        self.serving.signal(SIGNAL_MOVE)
        self.echo(client)  # on both sides of the move
        self.serving.expect("moved")
        self.adopting.expect("resumed")
        self.serving.process.kill()  # the old host is gone
        self.echo(client)
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(client.recv(1), b"")

    def test_c_moves(self):
        self.moves("echo.c")

    def test_c_moves_over_ipv6(self):
        self.moves("echo.c", family="6")

    def test_c_moves_to_another_local_address_behind_a_nat(self):
        self.moves("echo.c", mode="nat")

    def test_cpp_moves(self):
        self.moves("echo.cpp")

    def test_cpp_moves_to_another_local_address_behind_a_nat(self):
        self.moves("echo.cpp", mode="nat")

    def moves_as_nobody(self, program):
        """User 65534 without any capability, and a repair helper on each host. Its command may not change a route: it asks the test to."""
        if not (BUILD / "tcpmig").exists():
            skip(self, f"{BUILD}/tcpmig is not built: ./dev build")
        self.hosts = Hosts(self, self.installation)
        program = self.installation.example(program)
        scratch = pathlib.Path(tempfile.mkdtemp(dir=self.installation.root))
        for folder in (self.installation.root, scratch):
            folder.chmod(0o755)
        asked, done = scratch / "asked", scratch / "done"
        for pipe in (asked, done):
            os.mkfifo(pipe)
            os.chown(pipe, 65534, 65534)

        def start(where, *command):
            socket_path = scratch / f"{where}.sock"
            helper = self.hosts.start(where, BUILD / "tcpmig", "repair-helper", "--socket", socket_path, "--allow-user",
                                      "nobody")
            helper.expect("listening")
            process = self.hosts.start(where, "env", f"REPAIR_HELPER={socket_path}", "setpriv", "--reuid=65534",
                                       "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all",
                                       program, *command)
            process.expect("ready")
            return process

        adopting = start("b", "adopt", *CONTROL)
        serving = start("a", "serve", SERVICE["4"], 7777, *CONTROL, f"echo >{asked}; cat {done}")
        client = self.hosts.connect(SERVICE["4"], 7777)
        self.echo(client)
        serving.signal(SIGNAL_MOVE)
        asked.read_text()
        run("sh", "-c", self.hosts.move_command())
        done.write_text("")
        serving.expect("moved")
        adopting.expect("resumed")
        self.echo(client)
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(client.recv(1), b"")

    def test_c_moves_as_a_user_without_rights(self):
        self.moves_as_nobody("echo.c")

    def test_cpp_moves_as_a_user_without_rights(self):
        self.moves_as_nobody("echo.cpp")

    def stays(self, program):
        """The way of the packets cannot be changed: the target gives up silently, the source goes on."""
        client = self.serve(program, command="false")
        self.serving.signal(SIGNAL_MOVE)
        self.serving.expect("the command failed")
        self.serving.expect("not moved")
        self.echo(client)
        self.adopting.process.kill()
        self.echo(client)
        self.serving.signal(SIGNAL_MOVE)  # and now nobody waits there
        self.serving.expect("not moved")
        self.echo(client)
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(client.recv(1), b"")

    def test_c_goes_on_where_the_move_fails(self):
        self.stays("echo.c")

    def test_cpp_goes_on_where_the_move_fails(self):
        self.stays("echo.cpp")

    def survives_garbage(self, program):
        client = self.serve(program)
        for garbage in (b"", b"GET / HTTP/1.0\r\n\r\n", struct.pack(">I", 40) + bytes(40), struct.pack(">I", 1 << 31),
                        struct.pack(">II", 0, 40) + bytes(40), os.urandom(300)):
            stranger = self.hosts.connect(*CONTROL)
            try:
                stranger.sendall(garbage)
                stranger.shutdown(socket.SHUT_WR)
                self.assertEqual(stranger.recv(1), b"")
            except OSError as error:  # it did not read all, and the RST may come at any of them
                self.assertIn(error.errno, (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN))
        self.serving.signal(SIGNAL_MOVE)
        self.adopting.expect("resumed")
        self.echo(client)

    def test_c_survives_garbage(self):
        self.survives_garbage("echo.c")

    def test_cpp_survives_garbage(self):
        self.survives_garbage("echo.cpp")

    def test_usage(self):
        for name in ("echo.c", "echo.cpp", "stream.cpp"):
            program = self.installation.example(name)
            with self.assertRaisesRegex(AssertionError, "exit code 2\nusage: "):
                run(program, env=self.installation.environment)
            with self.assertRaisesRegex(AssertionError, "exit code 1\n.*(port|resolution|not known)"):
                run(program, "adopt", "no.such.name.invalid", "7000", env=self.installation.environment)


def numbers(start, end):
    """Bytes [start, end) of the numbers 0, 1, 2, .. of eight bytes each, big-endian."""
    words = array.array("Q", range(start // 8, end // 8 + 1))
    if sys.byteorder == "little":
        words.byteswap()
    return words.tobytes()[start % 8:start % 8 + end - start]


class Stream(PackageTest):
    MEGABYTES = 48

    def test_moves_while_it_is_sending(self):
        hosts = Hosts(self, self.installation)
        program = self.installation.example("stream.cpp")
        adopting = hosts.start("b", program, "adopt", *CONTROL)
        adopting.expect("ready")
        serving = hosts.start("a", program, "serve", SERVICE["4"], 7, self.MEGABYTES, *CONTROL, hosts.move_command())
        serving.expect("ready")
        client = hosts.connect(SERVICE["4"], 7)
        total, position, moved = self.MEGABYTES << 20, 0, False
        while position < total:
            data = receive(client, min(1 << 18, total - position))
            self.assertTrue(data == numbers(position, position + len(data)), f"wrong bytes after {position}")
            position += len(data)
            if position >= total // 4 and not moved:
                time.sleep(0.2)  # the client does not read: both kernels' queues are full
                serving.signal(SIGNAL_MOVE)
                moved = True
                serving.expect("moved")
        written = int(adopting.expect("resumed at byte").split()[4])
        self.assertEqual(client.recv(1), b"")
        # in the middle, with bytes in the send queue that the client had not got
        self.assertGreater(written, total // 4)
        self.assertLess(written, total)


class Python(PackageTest):
    def test_freezes_and_resumes(self):
        hosts = Hosts(self, self.installation)  # 127.0.0.1 of a namespace of ours
        output = run(hosts.script, "exec", "a", sys.executable, self.installation.examples / "freeze_resume.py",
                     env=hosts.environment)
        self.assertIn("after: 50000 bytes each way, equal", output)

    def test_says_what_is_missing(self):
        with self.assertRaisesRegex(AssertionError, "exit code 1\n.*cannot open shared object"):
            run(sys.executable, self.installation.examples / "freeze_resume.py", "--library", "/nonexistent.so")


if __name__ == "__main__":
    unittest.main()
