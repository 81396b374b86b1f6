# SPDX-License-Identifier: MIT
"""A scratch installation of the library, programs built with it as a user builds them, and two hosts to run them on."""
import concurrent.futures
import ctypes
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("TCPMIG_RELEASE", SOURCE / "build/release"))
DEADLINE = 30.0


def run(*command, **options):
    """The output of a command that must succeed."""
    result = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            timeout=300, **options)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit code {result.returncode}\n{result.stdout}")
    return result.stdout


def skip(test, reason):
    print("SKIPPED:", reason, flush=True)
    test.skipTest(reason)


class Installation:
    """The library below a prefix that is removed at the end. `environment` finds it there."""

    def __init__(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="tcpmig-package-"))
        self.prefix = self.root / "prefix"
        run("cmake", "--install", BUILD, "--prefix", self.prefix, "--component", "library")
        found = list(self.prefix.glob("**/libtcpmig.so"))
        assert len(found) == 1, found
        self.libraries = found[0].parent
        self.examples = self.prefix / "share/doc/tcpmig/examples"
        self.environment = dict(os.environ, PKG_CONFIG_PATH=str(self.libraries / "pkgconfig"),
                                LD_LIBRARY_PATH=str(self.libraries))

    def remove(self):
        shutil.rmtree(self.root)

    def flags(self, *arguments):
        return run("pkg-config", *arguments, env=self.environment).split()

    def example(self, name):
        """Builds examples/NAME as its first lines say; the path of the program."""
        program = self.root / name.replace(".", "_")
        source = self.examples / name
        if program.exists():
            return program
        if name.endswith(".c"):
            run("cc", "-O1", "-Wall", "-Wextra", "-Werror", source, "-o", program,
                *self.flags("--cflags", "--libs", "tcpmig"), env=self.environment)
        else:
            run("c++", "-std=c++23", "-O1", "-Wall", "-Wextra", "-Werror", source, "-o", program,
                *self.flags("--cflags", "--libs", "tcpmig-static"), env=self.environment)
        return program


class Process:
    """A program in a namespace, whose stderr is waited for line by line; it is ended at the end of the test."""

    def __init__(self, test, command, environment):
        self.said = ""  # and not yet expected
        self.process = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, env=environment)
        self.pid = self.process.pid
        test.addCleanup(self.end)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def signal(self, number):
        self.process.send_signal(number)

    def expect(self, text):
        """Waits for a line that has `text`; returns that line."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            line, newline, rest = self.said.partition("\n")
            if newline:
                self.said = rest
                if text in line:
                    return line
                print(f"[{self.pid}] {line}", flush=True)
            elif select.select([self.process.stderr], [], [], 0.5)[0]:
                more = os.read(self.process.stderr.fileno(), 4096)
                if not more:
                    break
                self.said += more.decode()
        raise AssertionError(f"'{text}' was not said by process {self.pid}")


class Hosts:
    """examples/two-hosts, up until the end of the test."""

    def __init__(self, test, installation, mode=""):
        if os.geteuid() != 0:
            skip(test, "needs root (network namespaces)")
        if mode == "nat" and shutil.which("nft") is None and not os.path.exists("/usr/sbin/nft"):
            skip(test, "needs nft")
        self.test = test
        self.installation = installation
        self.name = f"tmt-package-{os.getpid()}"
        self.script = installation.examples / "two-hosts"
        self.environment = dict(installation.environment, TWO_HOSTS=self.name)
        test.addCleanup(lambda: run(self.script, "down", env=self.environment))
        run(self.script, "up", *([mode] if mode else []), env=self.environment)

    def start(self, where, *command):
        return Process(self.test, [self.script, "exec", where, *command], self.environment)

    def connect(self, address, port):
        """A connection of the client."""
        return connect_in(self.test, f"{self.name}-client", address, port)

    def move_command(self, to="b"):
        return f"TWO_HOSTS={self.name} {self.script} move {to}"


def connect_in(test, namespace_name, address, port):
    """A connection of a client in that network namespace. A socket stays in the namespace that it was made in, a thread need not."""
    def enter_and_connect():
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{namespace_name}") as namespace:
            if libc.setns(namespace.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
                raise OSError(ctypes.get_errno(), "setns")
        return socket.create_connection((address, port), timeout=DEADLINE)

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        connection = thread.submit(enter_and_connect).result()
    test.addCleanup(connection.close)
    return connection


class Cluster:
    """A lab with two servers, each with a program behind its `handoff`, up until the end of the test."""

    def __init__(self, test, installation):
        if os.geteuid() != 0:
            skip(test, "needs root (network namespaces)")
        self.program = BUILD / "tcpmig"
        if not self.program.exists():
            skip(test, f"{self.program} is not built: ./dev build")
        self.test = test
        self.installation = installation
        self.name = f"tmtp{os.getpid()}"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tcpmig-cluster-"))
        test.addCleanup(lambda: shutil.rmtree(self.folder))
        servers = ", ".join(f'{{ node = "server{i}", handoff = "{self.folder}/{i}.sock" }}' for i in (1, 2))
        (self.folder / "lab.toml").write_text(
            '[[service]]\nname = "web"\nid = 1\nvip4 = "203.0.113.10"\nvip6 = "2001:db8:113::10"\nport = 80\n'
            f'route = [{{ pool = "all" }}]\n[[pool]]\nname = "all"\nservers = [{servers}]\n')
        test.addCleanup(lambda: run(self.program, "lab", "down", "--name", self.name))
        run(self.program, "lab", "up", "--name", self.name, "--servers", 2, "--config", self.folder / "lab.toml")

    def start(self, number, program, *more):
        """The program of a server: its handoff, its agent's socket, and more. As user 65534, without any right."""
        self.folder.chmod(0o777)
        return Process(self.test, [self.program, "lab", "exec", "--name", self.name, f"server{number}", "--", "setpriv",
                                   "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all",
                                   "--bounding-set=-all", program, f"{self.folder}/{number}.sock",
                                   f"/run/tcpmig/{self.name}/server{number}/exec.sock", *more], self.installation.environment)

    def connect(self, address):
        return connect_in(self.test, f"tcpmig-{self.name}-client1", address, 80)


def receive(connection, size):
    data = bytearray()
    while len(data) < size:
        more = connection.recv(min(size - len(data), 1 << 16))
        if not more:
            raise AssertionError(f"end of stream after {len(data)} of {size} bytes")
        data += more
    return bytes(data)


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.installation = Installation()

    @classmethod
    def tearDownClass(cls):
        cls.installation.remove()

    def echo(self, connection, size=20_000, rounds=5):
        """What the client says comes back, byte by byte."""
        for _ in range(rounds):
            data = os.urandom(size)
            connection.sendall(data)
            self.assertTrue(receive(connection, size) == data, "other bytes came back than were sent")


SIGNAL_MOVE = signal.SIGUSR1
