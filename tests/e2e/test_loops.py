"""A kernel that mounts EROFS from block devices alone (old_kernel.cpp plays it): each file of a mount stands behind a loop
device, which must go with the mount whoever dies first."""

import os
import pathlib
import subprocess
import sys

from case import Case
from sandbox import BUILD, kill_all, wait_until

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "fault"))
import oracle  # noqa: E402
from kills import FETCHD, HYDRANTD, KEEPER, Kills  # noqa: E402


class Loops(Case):
    def setUp(self):
        super().setUp()
        self.hydrant.env["LD_PRELOAD"] = str(BUILD / "lib/libold_kernel.so")

    def loops(self):
        """Backing files of the loop devices that read something of ours."""
        found = []
        for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                name = path.read_text().strip()
            except OSError:
                continue
            # Blob files are named as they stand in their own file system.
            if name.startswith(str(self.hydrant.root)):
                found.append(name)
        return found

    def let_go(self):
        wait_until(lambda: not self.loops(), what="the loop devices are gone")

    def test_an_image_is_its_tree(self):
        reference = self.push("one")
        directory = self.hydrant.mount(reference)
        self.assertGreaterEqual(len(self.loops()), 2)
        self.same_tree(self.unpack("one"), directory)
        checks = {check["name"]: check for check in self.hydrant.ok("doctor", "--json")["checks"]}
        self.assertTrue(checks["machine.erofs"]["good"])
        self.assertIn("loop", checks["machine.erofs"]["what"])
        self.hydrant.ok("umount", directory)
        self.let_go()
        # Of files that are complete, this time.
        directory = self.hydrant.mount(reference)
        self.same_tree(self.unpack("one"), directory)
        self.hydrant.ok("umount", directory)
        self.let_go()

    def test_readers_wait_for_the_next_hydrantd(self):
        kills = Kills(self.hydrant, 8192, seed=7)
        for kind in ("hydrantd", "hydrantd+fetchd", "fetchd", "keeper", "hydrantd"):
            kills.storm(1, kind)
        seen = kills.result()
        for what in ("wrong", "zeros", "failed", "short", "hung"):
            self.assertEqual(seen[what], 0, f"{seen}\n{self.hydrant.logs()}")
        self.hydrant.ok("umount", kills.directory)
        self.let_go()

    def test_all_killed_means_errors_and_the_devices_go_with_the_mount(self):
        source = self.hydrant.base / "oracle.bin"
        oracle.write(source, 8192)
        directory = self.hydrant.mount(f"file://{source}")
        with open(directory / "oracle.bin", "rb", buffering=0) as file:
            self.assertEqual(os.pread(file.fileno(), 4096, 0), oracle.page(0))
            pids = self.hydrant.daemons()
            kill_all(*(pids[name] for name in (KEEPER, HYDRANTD, FETCHD)))
            with self.assertRaises(OSError):
                os.pread(file.fileno(), 4096, 4096 * 5000)
        self.assertEqual(len(self.loops()), 2)
        subprocess.run(["umount", str(directory)], check=True)
        self.let_go()

    def test_fanotify_is_refused(self):
        source = self.hydrant.base / "oracle.bin"
        oracle.write(source, 16)
        done = self.hydrant.run("mount", "--front", "fanotify", f"file://{source}", self.temporary())
        self.assertEqual(done.returncode, 10, done)
        self.assertIn("6.12", done.stderr)
        self.assertEqual(self.loops(), [])
