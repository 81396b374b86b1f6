# SPDX-License-Identifier: MIT
"""The files of the Vagrant lab, without starting anything."""
import os
import pathlib
import shutil
import tempfile
import unittest

from support import BUILD, SOURCE, run, skip


class PackageTest(unittest.TestCase):
    pass


class Vagrant(PackageTest):
    def test_vagrantfile_is_valid(self):
        if not shutil.which("vagrant"):
            skip(self, "no vagrant here (packages-vagrant.txt)")
        if not pathlib.Path("/usr/share/doc/vagrant-libvirt").exists():
            skip(self, "no vagrant-libvirt here (packages-vagrant.txt)")
        with tempfile.TemporaryDirectory(prefix="tcpmig-vagrant-") as home:
            # It asks whether that is there which `./dev vagrant up` sees to.
            lab = pathlib.Path(home) / "lab"
            (lab / "files").mkdir(parents=True)
            (lab / "box").mkdir()
            (lab / "box/key").touch()
            environment = dict(os.environ, TCPMIG_VAGRANT_BUILD=str(lab), VAGRANT_HOME=home,
                               VAGRANT_DOTFILE_PATH=home + "/state", VAGRANT_CHECKPOINT_DISABLE="1",
                               VAGRANT_DEFAULT_PROVIDER="libvirt")
            output = run("vagrant", "validate", cwd=SOURCE / "vagrant", env=environment)
        self.assertIn("validated successfully", output)

    def test_configuration_is_good(self):
        if not (BUILD / "tcpmig").exists():
            skip(self, f"{BUILD / 'tcpmig'} is not built: ./dev build")
        run(BUILD / "tcpmig", "config", "check", SOURCE / "vagrant/tcpmig.toml")
