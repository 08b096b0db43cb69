"""Blocks are checked by hydrantd against the image's Merkle roots: a user daemon that lies, and bits that flip on the disk,
put no wrong byte before a reader."""

import errno
import os
import struct
import subprocess

import oci
from case import Case
from sandbox import BIN, kill_all, wait_until
from user_daemon import HEADER, PIECE, UserDaemon

MEGA = 1 << 20
IOCTL = 19
READ_COMPLETE = 0x40049801


class Liar(UserDaemon):
    """Whatever it is asked for, it writes other bytes over the whole object, then says that it is done."""

    refused = accepted = 0

    def fill(self, handle, message, offset, size):
        end = handle.path.stat().st_size
        for at in range(0, end, PIECE):
            result = handle.pwrite(b"lie!" * (min(PIECE, end - at) // 4), at)
            self.refused += result == -errno.EIO
            self.accepted += result > 0
        handle.tag += 1
        payload = struct.pack("<QI", message, READ_COMPLETE)
        handle.socket.send(HEADER.pack(IOCTL, 0, HEADER.size + len(payload), handle.tag, 0) + payload)
        handle.socket.recv(PIECE)


def read_cold(path, offset=0, size=-1):
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(offset)
        return file.read(size)


class Verify(Case):
    def image(self, size=8 * MEGA):
        """The reference of an image with one incompressible file; its content is self.content."""
        base = self.temporary()
        tree = base / "tree"
        tree.mkdir()
        self.content = os.urandom(size)
        (tree / "big").write_bytes(self.content)
        image = oci.Image(base / "image")
        image.add_layer(oci.tar_directory(tree))
        image.finish()
        oci.push(image.directory, self.registry.port, "app")
        return self.registry.name("app:latest")

    def mounted(self, *options, index=True):
        self.hydrant.start_daemons("--read-limit", "10", *options)
        self.reference = self.image()
        if index:
            self.hydrant.ok("index", self.reference)
        self.directory = self.hydrant.mount(self.reference, "--no-prefetch")
        return self.directory / "big"

    def stat(self):
        return self.hydrant.ok("stat", "--json", self.directory)

    def counter(self, name):
        return self.stat()["counters"]["hydrant_verify_" + name]

    def backing_file(self):
        device = self.stat()["devices"][0]["id"]
        [path] = [path for path in (self.hydrant.root / "cache").rglob("*") if path.is_file() and path.name.endswith(device)]
        return path

    def flip(self, path, offset):
        with open(path, "r+b", buffering=0) as file:
            [byte] = os.pread(file.fileno(), 1, offset)
            os.pwrite(file.fileno(), bytes([byte ^ 1]), offset)
            os.fsync(file.fileno())

    def kill(self, name):
        kill_all(self.hydrant.daemons()[name])

    def test_a_lying_user_daemon_reaches_no_reader(self):
        big = self.mounted()
        half = 256 << 10  # less than what makes a reader a stream, for which the rest is fetched, too
        self.assertEqual(read_cold(big, 0, half), self.content[:half])
        self.assertEqual(self.stat()["devices"][0]["verify"], "engine")
        self.kill("hydrant-fetchd")

        stat = self.stat()
        lies = self.temporary()
        for entry in [*stat["devices"], stat["metadata"]]:
            with open(lies / entry["id"], "wb") as file:
                file.truncate(entry["size"])
        liar = Liar(self.hydrant.root / "run/channel.sock", lies)
        with self.assertRaises(OSError) as failed:
            read_cold(big, len(self.content) - 4096, 4096)
        self.assertEqual(failed.exception.errno, errno.EIO)
        self.assertEqual(read_cold(big, 0, half), self.content[:half], "what was here stays as it was")
        liar.close()
        self.assertGreater(liar.refused, 0)
        self.assertGreater(self.counter("refused"), 0)
        self.assertIn("cachefiles.granule_refused", (self.hydrant.base / "hydrantd.log").read_text())

        log = open(self.hydrant.base / "hydrant-fetchd.log", "ab")
        subprocess.Popen([BIN / "hydrant-fetchd", "--root", self.hydrant.root], env=self.hydrant.env, stdout=log, stderr=log)
        def reads_again():
            try:
                return read_cold(big) == self.content
            except OSError:
                return False
        wait_until(reads_again, what="an honest daemon supplies the rest")

    def test_the_scrub_finds_what_flipped_on_the_disk(self):
        big = self.mounted("--scrub-every", "1", "--scrub-rate", "1g")
        self.assertEqual(read_cold(big), self.content)
        self.flip(self.backing_file(), 3 * MEGA + 5)
        wait_until(lambda: self.counter("damaged") > 0, 60, what="the scrub finds it")
        wait_until(lambda: read_cold(big) == self.content, 60, what="it is fetched anew")  # the scrub runs when nobody else does
        self.assertGreater(self.counter("scrubbed"), 0)
        wait_until(lambda: "pass " in self.hydrant.run("doctor").stdout, 60, "the doctor tells of a pass that ended")
        self.assertIn("did not match", self.hydrant.run("doctor").stdout)

    def test_after_an_unclean_end_what_is_cached_proves_itself(self):
        big = self.mounted()
        self.assertEqual(read_cold(big), self.content)
        wait_until(lambda: self.stat()["devices"][0]["durable"] >= len(self.content), what="it is durable")
        path = self.backing_file()
        before = self.hydrant.ok("stat", "--json", self.directory)["fetch"]["fetched_bytes"]
        self.assertGreater(before, 0)
        self.kill("hydrant-fetchd")
        self.kill("hydrantd")
        subprocess.run(["umount", "-l", self.directory], check=True)
        subprocess.run(["umount", "-l", self.hydrant.root / "blobs"], check=True)
        self.flip(path, 2 * MEGA)
        self.hydrant.start_daemons()
        self.directory = self.hydrant.mount(self.reference, "--no-prefetch")
        self.assertEqual(read_cold(self.directory / "big"), self.content)
        self.assertEqual(self.counter("damaged"), 1)
        self.assertGreater(self.counter("found"), 50)
        again = self.hydrant.ok("stat", "--json", self.directory)["fetch"]["fetched_bytes"]
        self.assertLess(again, before / 2, "what proves itself is not fetched again")

    def test_what_streamed_in_is_hashed_before_its_first_mount(self):
        big = self.mounted(index=False)
        [device] = self.stat()["devices"]
        self.assertEqual((device["verify"], device["present"]), ("engine", device["size"]))
        self.assertGreater(self.counter("found"), 0)
        self.assertEqual(read_cold(big), self.content)
        self.hydrant.ok("umount", self.directory)
        self.hydrant.ok("stop")
        self.hydrant.start_daemons()
        self.directory = self.hydrant.mount(self.reference)
        [device] = self.stat()["devices"]
        self.assertEqual((device["verify"], device["front"]), ("engine", "file"))
        self.assertEqual(self.counter("found"), 0, "once is enough")

    def test_the_check_can_be_left_to_fetchd(self):
        big = self.mounted("--verify", "fetchd")
        self.assertEqual(read_cold(big), self.content)
        self.assertEqual(self.stat()["devices"][0]["verify"], "fetchd")
        self.assertEqual(self.counter("written"), 0)

    def test_leaves_that_fetchd_has_changed_are_no_leaves(self):
        self.mounted()
        self.hydrant.ok("umount", self.directory)
        [leaves] = [path for path in (self.hydrant.root / "fetch/leaves").rglob("*") if path.is_file()]
        self.hydrant.ok("gc", "--at-most", "0")
        self.flip(leaves, 70)
        self.fails((1, 3, 8), ["Merkle root"], "mount", self.reference, self.hydrant.new_dir())
        self.assertIn("its leaves do not give its root", (self.hydrant.base / "hydrantd.log").read_text())
        self.directory = self.hydrant.mount(self.reference)  # brings them anew
        self.assertEqual(read_cold(self.directory / "big"), self.content)
        self.assertEqual(self.stat()["devices"][0]["verify"], "engine")
