"""Room in the cache: a quota under a live mount, `hydrant gc`, and a disk that is smaller than what is read."""

import contextlib
import hashlib
import os
import pathlib
import subprocess

import oci
from case import NOT_FOUND, Case
from sandbox import BIN, Hydrant, Registry, small_disk, wait_until

MEGA = 1 << 20


@contextlib.contextmanager
def images(*sizes):
    """A registry with an image of one incompressible file for each size; yields [(reference, SHA-256 of the file)]."""
    with Registry() as registry, Hydrant() as scratch:
        out = []
        for number, size in enumerate(sizes):
            content = scratch.base / f"content{number}"
            content.mkdir()
            (content / "big").write_bytes(os.urandom(size))
            image = oci.Image(scratch.base / f"image{number}")
            image.add_layer(oci.tar_directory(content))
            image.finish()
            oci.push(image.directory, registry.port, f"app{number}")
            out.append((registry.name(f"app{number}:latest"), hashlib.sha256((content / "big").read_bytes()).hexdigest()))
        yield out


def read_cold(path):
    """SHA-256 of a file, by way of the cache."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, "sha256").hexdigest()


def allocated(directory):
    return sum(path.lstat().st_blocks * 512 for path in pathlib.Path(directory).rglob("*") if path.is_file())


class Space(Case):
    def test_a_quota_holds_under_a_live_mount(self):
        with images(24 * MEGA) as [(reference, digest)], Hydrant() as hydrant:
            hydrant.start_daemons("--quota", "8M")
            hydrant.ok("index", reference)
            mounted = hydrant.mount(reference, "--no-prefetch") / "big"
            for _ in range(2):
                self.assertEqual(read_cold(mounted), digest)
                done = hydrant.ok("gc", "--json")
                self.assertLessEqual(done["usage"], 8 * MEGA)
                self.assertEqual(done["quota"], 8 * MEGA)
                def is_told():
                    told = hydrant.ok("gc", "--at-most", "1t", "--json")["usage"]
                    usage = allocated(hydrant.root / "cache")
                    return abs(told - usage) <= usage / 100
                wait_until(is_told, what="what is told is what the disk has allocated")
            self.assertEqual(read_cold(mounted), digest)

    def test_what_nobody_uses_goes_and_what_is_mounted_stays(self):
        with images(4 * MEGA, 6 * MEGA) as [(first, first_digest), (second, second_digest)], Hydrant() as hydrant:
            for reference in (first, second):
                hydrant.ok("index", reference)
            gone, stays = hydrant.mount(first), hydrant.mount(second)
            self.assertEqual(read_cold(gone / "big"), first_digest)
            self.assertEqual(read_cold(stays / "big"), second_digest)
            self.assertEqual(hydrant.ok("gc", "--json")["objects"], 0, "no limit is exceeded")
            hydrant.ok("umount", gone)
            done = hydrant.ok("gc", "--all", "--json")
            self.assertGreaterEqual(done["freed"], 4 * MEGA)
            self.assertGreaterEqual(done["usage"], 6 * MEGA)
            self.assertEqual(read_cold(stays / "big"), second_digest)
            self.assertEqual(read_cold(hydrant.mount(first) / "big"), first_digest)
            self.assertIn("freed", hydrant.ok("gc", "--at-most", "1g"))

    def test_a_disk_that_fills_up_gives_room_by_itself(self):
        sizes = [40 * MEGA] * 3
        with images(*sizes) as pulled, small_disk(128) as disk, Hydrant(base=disk) as hydrant:
            for reference, digest in pulled:
                mounted = hydrant.mount(reference)
                self.assertEqual(read_cold(mounted / "big"), digest)
                hydrant.ok("umount", mounted)
            wait_until(lambda: hydrant.ok("engine", "--json")["counters"]["culled"] > 0, 60, "something was culled")

    def test_what_is_pinned_is_never_culled(self):
        with images(4 * MEGA, 6 * MEGA) as [(pinned, pinned_digest), (other, other_digest)], Hydrant() as hydrant:
            for reference in (pinned, other):
                hydrant.ok("index", reference)
            directories = hydrant.mount(pinned, "--pin"), hydrant.mount(other)
            self.assertEqual(read_cold(directories[0] / "big"), pinned_digest)
            self.assertEqual(read_cold(directories[1] / "big"), other_digest)
            hydrant.ok("stop")
            hydrant.start_daemons("--quota", "2M")
            done = hydrant.ok("gc", "--all", "--json")
            self.assertEqual(done["pins"], [pinned])
            self.assertGreaterEqual(done["freed"], 6 * MEGA)
            self.assertGreaterEqual(done["pinned"], 4 * MEGA)
            self.assertLess(done["usage"], 6 * MEGA)
            # Nor under a live mount, whatever the quota says.
            directory = hydrant.mount(pinned)
            self.assertEqual(read_cold(directory / "big"), pinned_digest)
            self.assertEqual(hydrant.ok("gc", "--json")["freed"], 0)
            self.assertEqual(hydrant.ok("stat", "--json", directory)["fetch"]["fetched_bytes"], 0)
            self.assertIn(pinned, hydrant.ok("gc"))
            hydrant.ok("umount", directory)
            done = hydrant.ok("gc", "--unpin", pinned, "--all", "--json")
            self.assertEqual((done["pins"], done["pinned"]), ([], 0))
            self.assertGreaterEqual(done["freed"], 4 * MEGA)
            self.assertEqual(hydrant.run("gc", "--unpin", pinned).returncode, NOT_FOUND)

    def test_what_cannot_be_is_told(self):
        with Hydrant() as hydrant:
            self.assertEqual(hydrant.run("gc", "--at-most", "lots").returncode, 2)
            self.assertEqual(hydrant.run("gc").returncode, 15, "no daemon runs")
            wrong = subprocess.run([BIN / "hydrantd", "--root", hydrant.root, "--quota", "lots"], stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)
            self.assertEqual(wrong.returncode, 2)
