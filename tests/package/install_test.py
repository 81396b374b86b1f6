# SPDX-License-Identifier: MIT
"""What `cmake --install` installs, as its users find it; and the ABI, against abi.txt."""
import os
import pathlib
import re
import sys
import tempfile
import unittest

from support import BUILD, SOURCE, PackageTest, run, skip

HEADER = (SOURCE / "include/tcpmig.h").read_text()
ABI = pathlib.Path(__file__).with_name("abi.txt")

USE_C = """
#include <stdio.h>
#include <tcpmig.h>
int main(void) {
  tcpmig_snapshot *snapshot;
  if (tcpmig_snapshot_decode("TCPX", 4, &snapshot) >= 0) return 1;
  printf("%s: %s\\n", tcpmig_version_string(), tcpmig_last_error());
  return 0;
}
"""
USE_CPP = """
#include <tcpmig.h>
#include <tcpmig/codec.hpp>
#include <tcpmig/freeze.hpp>
#include <tcpmig/resume.hpp>
#include <iostream>
int main() {
  const tcpmig::FreezeKit kit({});
  const auto bytes = tcpmig::encode({});
  std::cout << tcpmig_version_string() << " " << tcpmig::decode(bytes).has_value() << kit.has_lock() << std::endl;
}
"""
CMAKE = """
cmake_minimum_required(VERSION 3.25)
project(user C CXX)
find_package(tcpmig 0.1 REQUIRED COMPONENTS static)
add_executable(c use.c)
target_link_libraries(c PRIVATE tcpmig::tcpmig)
add_executable(cpp use.cpp)
target_link_libraries(cpp PRIVATE tcpmig::tcpmig_static)
"""


def functions_of_header():
    return sorted(set(re.findall(r"^TCPMIG_API [^;]*?\b(tcpmig_\w+)\(", HEADER, re.MULTILINE)))


def struct_fields():
    found = {}
    for name, body in re.findall(r"^struct (tcpmig_\w+) \{\n(.*?)^\};", HEADER, re.MULTILINE | re.DOTALL):
        found[name] = re.findall(r"\b(\w+);", re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL))
    return found


def abi_program():
    """Prints what a program that was compiled with the header relies on."""
    lines = ["#include <stddef.h>", "#include <stdio.h>", "#include <tcpmig.h>", "int main(void) {"]
    for name in re.findall(r"^  (TCPMIG_\w+) = ", HEADER, re.MULTILINE):
        lines.append(f'  printf("value {name} %d\\n", (int){name});')
    for name, fields in struct_fields().items():
        lines.append(f'  printf("struct {name} %zu\\n", sizeof(struct {name}));')
        for field in fields:
            lines.append(f'  printf("field {name}.{field} %zu %zu\\n", offsetof(struct {name}, {field}), '
                         f"sizeof(((struct {name} *)0)->{field}));")
    return "\n".join(lines + ["  return 0;", "}", ""])


class Install(PackageTest):
    def setUp(self):
        self.scratch = pathlib.Path(tempfile.mkdtemp(dir=self.installation.root))

    def write(self, name, text):
        path = self.scratch / name
        path.write_text(text)
        return path

    def test_abi_is_the_one_that_is_written_down(self):
        program = self.scratch / "abi"
        run("cc", "-std=c11", f"-I{self.installation.prefix}/include", self.write("abi.c", abi_program()), "-o", program)
        exported = run("nm", "-D", "--defined-only", self.installation.libraries / "libtcpmig.so.0")
        symbols = [line.split()[2] for line in exported.splitlines() if line.split()[1] != "A"]
        now = [f"symbol {symbol}" for symbol in sorted(symbols)] + run(program).splitlines()
        written = [line for line in ABI.read_text().splitlines() if not line.startswith("#")]
        self.assertEqual(written, now, f"{ABI.name} is not what is built; if that is meant, write it anew")
        self.assertEqual(functions_of_header(), sorted(symbol.partition("@")[0] for symbol in symbols))
        self.assertTrue(struct_fields())

    def test_soname_and_what_it_needs(self):
        dynamic = run("readelf", "-dW", self.installation.libraries / "libtcpmig.so.0")
        self.assertIn("Library soname: [libtcpmig.so.0]", dynamic)
        needed = re.findall(r"Shared library: \[([a-z+_0-9-]+)\.", dynamic)
        self.assertLessEqual(set(needed), {"libbpf", "libmnl", "libstdc++", "libgcc_s", "libc", "libm", "ld-linux-x86-64",
                                           "ld-linux-aarch64"})
        self.assertIn("NOW", dynamic)
        self.assertIn("GNU_RELRO", run("readelf", "-lW", self.installation.libraries / "libtcpmig.so.0"))

    def test_header_is_c_and_cpp(self):
        source = self.write("use.c", USE_C)
        for command in (["cc", "-std=c11"], ["cc", "-std=c99"], ["c++", "-x", "c++", "-std=c++11"]):
            run(*command, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only",
                f"-I{self.installation.prefix}/include", source)

    def use(self, name, text, compiler, module):
        program = self.scratch / "use"
        run(*compiler, self.write(name, text), "-o", program, *self.installation.flags("--cflags", "--libs", module))
        return run(program, env=self.installation.environment)

    def test_pkg_config_shared_c(self):
        self.assertEqual(self.use("use.c", USE_C, ["cc"], "tcpmig"), "0.1.0: not a snapshot\n")

    def test_pkg_config_static_c_and_cpp(self):
        self.assertEqual(self.use("use.c", USE_C, ["cc"], "tcpmig-static"), "0.1.0: not a snapshot\n")
        self.assertRegex(self.use("use.cpp", USE_CPP, ["c++", "-std=c++23"], "tcpmig-static"), r"^0\.1\.0 1[01]\n$")
        self.assertNotIn("libtcpmig", run("readelf", "-dW", self.scratch / "use"))

    def test_find_package(self):
        self.write("use.c", USE_C)
        self.write("use.cpp", USE_CPP)
        self.write("CMakeLists.txt", CMAKE)
        run("cmake", "-S", self.scratch, "-B", self.scratch / "build", f"-DCMAKE_PREFIX_PATH={self.installation.prefix}")
        run("cmake", "--build", self.scratch / "build")
        self.assertEqual(run(self.scratch / "build/c"), "0.1.0: not a snapshot\n")
        self.assertRegex(run(self.scratch / "build/cpp"), r"^0\.1\.0 1[01]\n$")

    def test_find_package_refuses_another_minor_version(self):
        self.write("CMakeLists.txt", CMAKE.replace("tcpmig 0.1", "tcpmig 0.2"))
        with self.assertRaisesRegex(AssertionError, 'compatible\\s+with requested version "0.2"'):
            run("cmake", "-S", self.scratch, "-B", self.scratch / "build",
                f"-DCMAKE_PREFIX_PATH={self.installation.prefix}")

    def test_destdir_holds_the_same_and_nothing_of_it_is_written_down(self):
        run("cmake", "--install", BUILD, "--prefix", "/opt/tcpmig", "--component", "library",
            env=dict(self.installation.environment, DESTDIR=str(self.scratch)))
        staged = self.scratch / "opt/tcpmig"

        def names(root):
            return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())

        self.assertEqual(names(staged), names(self.installation.prefix))
        for expected in ("include/tcpmig.h", "include/tcpmig/freeze.hpp", "share/doc/tcpmig/README.md",
                         "share/doc/tcpmig/examples/echo.c", "share/doc/tcpmig/examples/tcpmig.toml"):
            self.assertIn(expected, names(staged))
        for path in staged.rglob("*"):
            if path.suffix in (".pc", ".cmake"):
                self.assertNotIn(str(self.scratch), path.read_text(), path)
        self.assertFalse(pathlib.Path("/opt/tcpmig").exists())

    def test_program_is_installed_with_the_rest(self):
        if not (BUILD / "tcpmig").exists():
            skip(self, f"{BUILD}/tcpmig is not built: ./dev build")
        run("cmake", "--install", BUILD, "--prefix", self.scratch)
        self.assertTrue(run(self.scratch / "bin/tcpmig", "version").startswith("tcpmig 0.1.0 "))
        self.assertTrue((self.scratch / "include/tcpmig.h").exists())
        if os.geteuid() != 0:
            skip(self, "`tcpmig exec` takes root")
        # it looks for libtcpmig-preload.so where it was installed
        program = "import os; print(os.path.realpath(os.environ['LD_PRELOAD']))"
        shown = run(self.scratch / "bin/tcpmig", "--config", SOURCE / "examples/tcpmig.toml", "--node", "server1", "exec", "--",
                    sys.executable, "-c", program)
        self.assertEqual(shown, f"{(self.scratch / 'lib/tcpmig/libtcpmig-preload.so').resolve()}\n")


if __name__ == "__main__":
    unittest.main()
