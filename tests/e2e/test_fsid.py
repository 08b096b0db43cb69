"""`mount --fsid`: EROFS images that a user daemon of another make serves, held against the kernel's own mount of the same file."""

import contextlib
import os
import random
import shutil
import struct
import subprocess
import unittest

from case import CORRUPT, NO_DAEMON, NOT_FOUND, USAGE, Case
from sandbox import BIN, Hydrant, wait_until
from user_daemon import UserDaemon


def make_tree(directory):
    """Small and large files, links, a hole, names in a directory of several blocks."""
    directory.mkdir()
    dice = random.Random(7)
    (directory / "large").write_bytes(dice.randbytes(6 << 20))
    (directory / "text").write_bytes(b"".join(b"%d squared is %d\n" % (n, n * n) for n in range(40000)))
    (directory / "odd").write_bytes(dice.randbytes(12345))
    (directory / "empty").touch()
    with open(directory / "hole", "wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    os.symlink("large", directory / "link")
    os.link(directory / "odd", directory / "same")
    os.mkfifo(directory / "fifo")
    (directory / "many").mkdir()
    for n in range(400):
        (directory / "many" / f"file-with-a-rather-long-name-{n}").write_text(str(n))
    os.setxattr(directory / "text", "user.colour", b"blue")


def name_device(image, tag):
    """mkfs.erofs leaves the device's tag empty. The superblock's checksum is switched off."""
    with open(image, "r+b") as file:
        file.seek(1024 + 8)
        features = struct.unpack("<I", file.read(4))[0]
        file.seek(1024 + 8)
        file.write(struct.pack("<I", features & ~1))
        file.seek(1024 + 86)
        count, slot = struct.unpack("<HH", file.read(4))
        assert count == 1
        file.seek(slot * 128)
        file.write(tag.encode().ljust(64, b"\0"))


class Fsid(Case):
    def setUp(self):
        self.hydrant = Hydrant()
        self.addCleanup(self.hydrant.close)
        self.served = self.hydrant.base / "served"
        self.served.mkdir()
        self.tree = self.hydrant.base / "tree"
        make_tree(self.tree)
        self.start_engine()

    def start_engine(self):
        self.hydrant.root.mkdir(exist_ok=True)
        (self.hydrant.root / "run").mkdir(exist_ok=True)
        log = open(self.hydrant.root / "run/hydrantd.log", "ab")
        self.addCleanup(log.close)
        engine = subprocess.Popen([BIN / "hydrantd", "--root", str(self.hydrant.root), "--open-limit", "20"], stdout=log,
                                  stderr=log)
        self.addCleanup(engine.wait)
        self.addCleanup(engine.kill)
        self.channel = self.hydrant.root / "run/channel.sock"
        wait_until(lambda: self.hydrant.run("ls").returncode == 0, what="hydrantd answers")

    @contextlib.contextmanager
    def daemon(self):
        daemon = UserDaemon(self.channel, self.served)
        try:
            yield daemon
        finally:
            daemon.close()

    def image(self, name, *options):
        subprocess.run(["mkfs.erofs", "--quiet", *options, str(self.served / name), str(self.tree)], check=True,
                       stdout=subprocess.DEVNULL)
        return self.served / name

    def loop(self, image):
        device = subprocess.run(["losetup", "-f", "--show", "-r", str(image)], check=True, stdout=subprocess.PIPE,
                                text=True).stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "-d", device])
        return device

    def kernel_mount(self, image, blob=None):
        """The kernel's own, from loop devices."""
        point = self.temporary()
        options = "ro" + (f",device={self.loop(blob)}" if blob else "")
        subprocess.run(["mount", "-t", "erofs", "-o", options, self.loop(image), str(point)], check=True)
        self.addCleanup(subprocess.run, ["umount", str(point)])
        return point

    def mount_fsid(self, fsid, *options):
        directory = self.temporary()
        self.hydrant.ok("mount", "--fsid", fsid, *options, directory)
        return directory

    def test_plain_image_comes_on_demand(self):
        image = self.image("plain")
        with self.daemon() as daemon:
            directory = self.mount_fsid("plain")
            self.assertEqual(daemon.opens, [("erofs,plain", "plain")])
            self.assertEqual((directory / "many/file-with-a-rather-long-name-17").read_text(), "17")
            self.assertLess(daemon.written, image.stat().st_size // 2)
            self.same_tree(self.kernel_mount(image), directory)
            self.hydrant.ok("umount", directory)
            # What is here is not asked for again.
            before = daemon.written
            self.same_tree(self.kernel_mount(image), self.mount_fsid("plain"))
            self.assertEqual(daemon.written, before)

    def test_compressed_image(self):
        image = self.image("packed", "-zlz4hc")
        with self.daemon():
            self.same_tree(self.kernel_mount(image), self.mount_fsid("packed"))

    def test_devices_as_given_and_as_the_image_names_them(self):
        image = self.image("chunked", "--chunksize=4096", f"--blobdev={self.served}/blob")
        expected = self.kernel_mount(image, self.served / "blob")
        with self.daemon() as daemon:
            self.fails(CORRUPT, ["chunked", "does not name its device 1"], "mount", "--fsid", "chunked", self.temporary())
            self.same_tree(expected, self.mount_fsid("chunked", "--device", "blob"))
            shutil.copy(image, self.served / "named")
            name_device(self.served / "named", "blob")
            daemon.opens.clear()
            self.same_tree(expected, self.mount_fsid("named", "--socket", self.channel))
            self.assertEqual(daemon.opens, [("erofs,named", "named"), ("erofs,named", "blob")])

    def test_a_domain_shares_its_devices(self):
        image = self.image("first", "--chunksize=4096", f"--blobdev={self.served}/blob")
        name_device(image, "blob")
        shutil.copy(image, self.served / "second")
        with self.daemon() as daemon:
            mounts = [self.mount_fsid(name, "--domain-id", "shared") for name in ("first", "second", "first")]
            self.assertEqual(daemon.opens, [("erofs,shared", name) for name in ("first", "blob", "second")])
            expected = self.kernel_mount(image, self.served / "blob")
            for directory in mounts:
                self.same_tree(expected, directory)
            self.hydrant.ok("umount", mounts[0])
            self.same_tree(expected, mounts[2])

    def test_a_daemon_that_is_replaced(self):
        image = self.image("plain")
        with self.daemon():
            directory = self.mount_fsid("plain")
            self.assertEqual((directory / "odd").read_bytes(), (self.tree / "odd").read_bytes())
        self.fails(NO_DAEMON, ["no user daemon", "attached"], "mount", "--fsid", "plain", self.temporary())
        with self.daemon():
            self.same_tree(self.kernel_mount(image), directory)

    def test_bad_input(self):
        self.image("plain")
        (self.served / "text").write_bytes(b"no image\n" * 1000)
        (self.served / "short").write_bytes(b"x")
        self.fails(NO_DAEMON, ["no user daemon"], "mount", "--fsid", "plain", self.temporary())
        nowhere = self.hydrant.base / "nowhere"
        self.fails(NO_DAEMON, [nowhere], "mount", "--fsid", "plain", "--socket", nowhere, self.temporary())
        with self.daemon():
            directory = self.temporary()
            self.fails(NOT_FOUND, ["absent"], "mount", "--fsid", "absent", directory)
            self.fails(CORRUPT, ["text", "not an EROFS image"], "mount", "--fsid", "text", directory)
            self.fails(CORRUPT, ["short", "not an EROFS image"], "mount", "--fsid", "short", directory)
            self.fails(USAGE, ["0 devices", "1 were given"], "mount", "--fsid", "plain", "--device", "short", directory)
            self.fails(USAGE, ["not a usable name"], "mount", "--fsid", "a/b", directory)
            self.fails(USAGE, ["not a usable name"], "mount", "--fsid", "a" * 241, directory)
            self.fails(USAGE, ["not a usable name"], "mount", "--fsid", "plain", "--domain-id", "a/b", directory)
            self.assertEqual(self.hydrant.image_mounts(), [])
            self.assertEqual(list((self.hydrant.root / "mounts").iterdir()), [])
            self.hydrant.ok("mount", "--fsid", "plain", directory)
            chunked = self.image("chunked", "--chunksize=4096", f"--blobdev={self.served}/blob")
            name_device(chunked, "lost")
            self.fails(NOT_FOUND, ["lost"], "mount", "--fsid", "chunked", self.temporary())


if __name__ == "__main__":
    unittest.main()
