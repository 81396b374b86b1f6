# SPDX-License-Identifier: MIT
"""The Debian package, as `./dev deb` makes it. It is installed on this machine's own files, but in an overlay that only its processes
see: dpkg's database and everything else stay as they are."""
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from support import BUILD, SOURCE, run, skip

FOLDER = SOURCE / "build/deb"
# $1 is a tmpfs that goes with the mount namespace.
ENTER = """
set -e
mount -t tmpfs -o size=512M tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root" || exit 77
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/run"
mount --bind "$2" "$1/root/mnt"
chroot "$1/root" /bin/bash -euc "$3"
echo CHANGED
cd "$1/upper"
find . ! -type d -printf '/%P\\n'
find . -type d -printf '/%P\\n' | while read -r folder; do [[ -d $folder ]] || echo "$folder"; done
"""
# What dpkg, ldconfig and man-db write down is not of the package.
NOT_OURS = re.compile(r"(/var/(lib/dpkg|log|cache)/|/etc/ld\.so\.cache)")


class PackageTest(unittest.TestCase):
    """One package for all; each test that installs it has a root of its own."""

    def setUp(self):
        packages = list(FOLDER.glob("*.deb"))
        self.assertEqual(len(packages), 1, packages)
        self.package = packages[0]

    def in_root(self, script):
        """The script's output, and what has changed. It runs below a root where it can do no harm, with the package in /mnt."""
        if os.geteuid() != 0:
            skip(self, "needs root (a mount namespace)")
        if os.path.exists("/usr/bin/tcpmig"):
            skip(self, "tcpmig is installed here")
        with tempfile.TemporaryDirectory(prefix="tcpmig-root-") as root:
            result = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--net", "bash", "-c", ENTER, "enter", root, FOLDER, script],
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=250, check=False,
                                    env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"})
        if result.returncode == 77:
            skip(self, "no overlay of the root file system here: " + result.stdout.strip())
        self.assertEqual(result.returncode, 0, result.stdout)
        output, changed = result.stdout.split("CHANGED\n")
        return output, changed.split()


class Deb(PackageTest):
    def test_it_installs_works_and_is_removed_cleanly(self):
        output, changed = self.in_root("""
            dpkg -i /mnt/*.deb
            tcpmig version
            tcpmig agent down && exit 1 || [ $? = 2 ]   # no configuration
            ldconfig -p | grep -F libtcpmig.so.0
            pkg-config --exists tcpmig
            test -d /etc/tcpmig -a -f /usr/lib/tcpmig/libtcpmig-preload.so
            tcpmig config check /usr/share/doc/tcpmig/examples/tcpmig.toml
            dpkg --verify tcpmig
            test -z "$(find /etc/systemd -name 'tcpmig*')"   # none is enabled
            echo "secret" >/etc/tcpmig/secret
            dpkg -r tcpmig
            ! test -e /usr/bin/tcpmig
            test "$(cat /etc/tcpmig/secret)" = secret
            rm -r /etc/tcpmig
            dpkg -P tcpmig
            """)
        self.assertEqual([path for path in changed if not NOT_OURS.match(path)], [], output)

    def test_units_are_valid_and_what_they_may_do_is_bounded(self):
        if not shutil.which("systemd-analyze"):
            skip(self, "no systemd-analyze here")
        output, _ = self.in_root("""
            dpkg -i /mnt/*.deb >/dev/null
            cd /usr/lib/systemd/system
            for unit in tcpmig-*.service; do
              systemd-analyze verify --man=no "$unit" 2>&1 | grep -F tcpmig && exit 1
              systemd-analyze security --offline=yes --no-pager "$unit" | tail -n 1
            done
            """)
        levels = [float(level) for level in re.findall(r"exposure level for tcpmig-\S+: (\d\.\d)", output)]
        self.assertEqual(len(levels), 4, output)
        self.assertLess(max(levels), 6.0, output)

    def test_man_pages_have_every_command_and_no_mistake(self):
        pages = [BUILD / "man/tcpmig.1", BUILD / "man/tcpmig.toml.5"]
        text = pages[0].read_text()
        commands = re.findall(r'^\.Ss "tcpmig (.*)"$', text, re.MULTILINE)
        for command in ("switch run", "agent check", "lab up", "freeze", "repair\\-helper", "config check", "doctor"):
            self.assertIn(command, commands)
        if not shutil.which("mandoc"):
            skip(self, "no mandoc here")
        run("mandoc", "-T", "lint", "-W", "warning", *pages)

    def test_lintian_finds_no_error(self):
        if not shutil.which("lintian"):
            skip(self, "no lintian here (packages-lint.txt)")
        run("lintian", "--allow-root", "--fail-on", "error", self.package)

    def test_completion_knows_commands_and_options(self):
        script = f"""
            PATH={BUILD}:$PATH
            . {SOURCE}/packaging/completion/tcpmig
            try() {{ COMP_WORDS=(tcpmig "$@"); COMP_CWORD=$#; _tcpmig; echo "${{COMPREPLY[*]}}"; }}
            try sw; try lab d; try --json switch run --data; try lab up --client
            """
        self.assertEqual(run("bash", "-euc", script).split("\n")[:-1],
                         ["switch", "demo down", "--datapath", "--clients"])
