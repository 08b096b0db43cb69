"""hydrant-fetchd as the user daemon of a kernel: `--device /dev/cachefiles`. The kernel here is our own engine, behind the
preload library; tests/oracle/device.py asks a real one."""

import hashlib
import os
import re
import shlex
import signal
import subprocess
import unittest

import images
from case import BUSY, NOT_FOUND, USAGE, Case
from sandbox import BIN, Hydrant, processes_naming, wait_until
from test_fsid import make_tree

COMMAND = re.compile(r"mount -t erofs -o fsid=([A-Za-z0-9._-]+)(?:,domain_id=([a-z]+))? none DIR\n")


class Device(Case):
    def setUp(self):
        self.hydrant = Hydrant()
        self.addCleanup(self.hydrant.close)
        self.base = self.hydrant.base
        self.socket = self.base / "engine.sock"
        self.cache = self.base / "cache"
        self.state = self.base / "fetchd"
        self.addCleanup(self.put_away)
        self.points = []

    def put_away(self):
        for point in self.points:
            subprocess.run(["umount", "-l", str(point)], stderr=subprocess.DEVNULL)
        for pid in processes_naming(str(self.base)):
            os.kill(pid, signal.SIGKILL)

    def words(self, *serve, root=None):
        words = [BIN / "hydrant-fetchd", "--device", "/dev/cachefiles", "--root", root or self.state, "--cache-dir", self.cache]
        for source in serve:
            words += ["--serve", source]
        return list(map(str, words))

    def in_kernel(self, *program):
        return [str(BIN / "hydrant"), "cachefiles-exec", "--socket", str(self.socket), "--", *program]

    def run_in_kernel(self, *program):
        with open(self.base / "fetchd.log", "ab") as log:
            process = subprocess.Popen(self.in_kernel(*program), stdout=subprocess.PIPE, stderr=log, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def start(self, *serve):
        """Returns the daemon and what it printed: (fsid, domain) a source."""
        daemon = self.run_in_kernel(*self.words(*serve))
        return daemon, [self.command(daemon.stdout.readline()) for _ in serve]

    def command(self, line):
        match = COMMAND.fullmatch(line)
        self.assertTrue(match, repr(line) + self.log())
        return match.groups()

    def log(self):
        return "\n" + (self.base / "fetchd.log").read_text()[-4000:]

    def mount(self, fsid, domain=None):
        directory = self.temporary()
        self.hydrant.ok("mount", "--fsid", fsid, *(("--domain-id", domain) if domain else ()), "--socket", self.socket, directory)
        self.points.append(directory)
        return directory

    def erofs_image(self):
        tree, image = self.base / "tree", self.base / "image.erofs"
        make_tree(tree)
        subprocess.run(["mkfs.erofs", "--quiet", str(image), str(tree)], check=True, stdout=subprocess.DEVNULL)
        return tree, image

    def listing(self):
        return self.hydrant.ok("engine", "--socket", self.socket, "--json")

    def reads_asked(self):
        return sum(cookie["reads"] for cookie in self.listing()["cookies"])

    def pending(self):
        return sum(cache["requests"] for cache in self.listing()["caches"])

    def test_images_files_and_erofs_images_are_served(self):
        tree, image = self.erofs_image()
        daemon, ((app, none), (oci, domain), (file, _)) = self.start(
            f"app=file:{image}", f"oci:{images.path('small')}", f"file:{tree}/large")
        self.assertEqual((app, none, domain), ("app", None, "hydrant"))
        self.same_tree(tree, self.mount(app))
        self.same_tree(self.unpack("small"), self.mount(oci, domain))
        self.assertEqual((self.mount(file, domain) / "large").read_bytes(), (tree / "large").read_bytes())
        [device] = self.hydrant.ok("stat", "--json", "--socket", self.socket, self.points[1])["devices"]
        self.assertGreater(device["present"], 0)
        # What is here stays, and is not asked for again.
        for point in self.points:
            self.hydrant.ok("umount", "--socket", self.socket, point)
        # The kernel lets go of their files a moment later.
        wait_until(lambda: not self.listing()["cookies"], what="nothing is in use")
        daemon.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(30), 0)
        # The engine hears of its last user's death a moment after whoever waits for it, and ends.
        wait_until(lambda: not self.socket.exists(), what="the engine has ended")
        _, ((again, domain),) = self.start(f"oci:{images.path('small')}")
        self.assertEqual(again, oci)
        self.same_tree(self.unpack("small"), self.mount(again, domain))
        self.assertEqual(self.reads_asked(), 0)

    def test_a_daemon_that_is_killed_while_the_device_is_held(self):
        """The shell holds the device for those it starts, as systemd does."""
        tree, image = self.erofs_image()
        go = self.base / "go"
        os.mkfifo(go)
        once = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=cachefiles exec " + shlex.join(self.words(f"app=file:{image}"))
        script = f"exec 3<>/dev/cachefiles; while read -r word < {go}; do sh -c {shlex.quote(once)}; done"
        holder = self.run_in_kernel("sh", "-c", script)
        go.write_text("go\n")
        self.assertEqual(self.command(holder.stdout.readline()), ("app", None))
        directory = self.mount("app")
        self.assertEqual((directory / "odd").read_bytes(), (tree / "odd").read_bytes())
        pid = int((self.state / "run/fetchd.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        reader = subprocess.Popen(["sha256sum", str(directory / "large")], stdout=subprocess.PIPE, text=True)
        self.addCleanup(reader.stdout.close)
        self.addCleanup(reader.kill)
        wait_until(self.pending, what="the reader has missed")
        os.kill(pid, signal.SIGKILL)
        self.assertIsNone(reader.poll())
        go.write_text("go\n")
        self.assertEqual(self.command(holder.stdout.readline()), ("app", None))
        self.assertEqual(reader.communicate(timeout=60)[0].split()[0],
                         hashlib.sha256((tree / "large").read_bytes()).hexdigest(), self.log())
        self.same_tree(tree, directory)

    def test_a_name_stays_with_its_version(self):
        _, image = self.erofs_image()
        daemon, _ = self.start(f"app=file:{image}")
        daemon.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(30), 0)
        image.write_bytes(image.read_bytes())  # who knows what the new one holds
        daemon = self.run_in_kernel(*self.words(f"app=file:{image}", f"file:{image}"))
        fsid, _ = self.command(daemon.stdout.readline())
        self.assertNotEqual(fsid, "app")
        self.assertIn("app is the name of another image or of an older version", self.log())

    def test_one_daemon_a_device(self):
        self.start()
        wait_until((self.state / "run/fetchd.pid").exists, what="the daemon has opened the device")
        other = subprocess.run(self.in_kernel(*self.words(root=self.base / "other")), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(other.returncode, BUSY, other.stderr)
        self.assertIn("another daemon has it", other.stderr)

    def test_bad_input(self):
        def fails(status, word, words):
            done = subprocess.run(self.in_kernel(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(word, done.stderr)
        fails(USAGE, "no ID", self.words("a b=file:/x"))
        fails(USAGE, "oci:", self.words("oci:"))
        fails(USAGE, "one word", [*self.words(), "--tag", "a b"])
        fails(NOT_FOUND, "no such device", [word.replace("/dev/cachefiles", "/dev/absent") for word in self.words()])


if __name__ == "__main__":
    unittest.main()
