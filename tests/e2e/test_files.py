"""Single files over HTTP and from disk: right bytes of one version, or an error."""

import errno
import gzip
import hashlib
import os
import random
import signal
import subprocess

import images
import oci
from case import BUSY, CORRUPT, NOT_FOUND, UNREACHABLE, UNSUPPORTED, USAGE, Case
from file_server import FileServer
from sandbox import free_port, kill_all, wait_until
from test_faults import Reader
from test_fsid import make_tree

SIZE = (24 << 20) + 12345


class Files(Case):
    def setUp(self):
        super().setUp()
        self.server = FileServer()
        self.addCleanup(self.server.close)
        self.data = random.Random(7).randbytes(SIZE)

    def serve(self, path="/images/disk%20one.img", **options):
        return self.server.add(path, self.data, **options), self.server.url(path)

    def read(self, path, offset, size=65536):
        file = os.open(path, os.O_RDONLY)
        try:
            return os.pread(file, size, offset)
        finally:
            os.close(file)

    def test_a_file_stands_at_a_path(self):
        served, url = self.serve()
        path = self.temporary() / "weights"
        path.write_text("what was there before")
        self.hydrant.ok("mount", url, path)
        self.assertEqual(path.stat().st_size, SIZE)
        self.assertEqual(hashlib.sha256(path.read_bytes()).digest(), hashlib.sha256(self.data).digest())
        [entry] = self.hydrant.ok("ls", "--json")["mounts"]
        self.assertEqual((entry["dir"], entry["state"]), (str(path), "live"))
        self.assertEqual(self.hydrant.ok("stat", "--json", path)["image"]["form"], "file")
        self.fails(BUSY, ["weights"], "mount", url, path)
        # The next hydrantd knows it as it knows directories.
        kill_all(self.hydrant.daemons()["hydrantd"])
        wait_until(lambda: self.hydrant.run("ls").returncode == 0, what="the next hydrantd")
        self.assertEqual(self.hydrant.ok("ls", "--json")["mounts"][0]["state"], "live")
        self.hydrant.ok("umount", path)
        self.assertEqual(path.read_text(), "what was there before")
        self.fails(USAGE, ["not a directory"], "mount", self.push("small"), path)
        self.assertEqual(self.hydrant.ok("ls", "--json")["mounts"], [])

    def fails_to_read(self, path, offset):
        with self.assertRaises(OSError) as caught:
            self.read(path, offset)
        self.assertEqual(caught.exception.errno, errno.EIO)

    def errors(self, directory):
        return self.hydrant.ok("stat", "--json", directory)["fetch"]["errors"]

    def test_a_file_of_a_server_is_read_in_parts_and_whole(self):
        served, url = self.serve()
        directory = self.temporary()
        told = self.hydrant.ok("mount", "--json", url, directory)
        self.assertEqual((told["image"]["form"], told["image"]["files"]), ("file", 1))
        self.assertEqual(len(told["devices"]), 1)
        self.assertEqual(os.listdir(directory), ["disk one.img"])
        path = directory / "disk one.img"
        status = path.stat()
        self.assertEqual((status.st_size, status.st_mode & 0o7777, status.st_mtime), (SIZE, 0o444, 784111777))
        self.assertLess(served.sent, 150_000, "the mount fetches no content but the head")

        self.assertEqual(self.read(path, SIZE // 2), self.data[SIZE // 2 : SIZE // 2 + 65536])
        self.assertLess(served.sent, 5 << 20)
        self.assertEqual(hashlib.sha256(path.read_bytes()).digest(), hashlib.sha256(self.data).digest())
        self.assertLess(served.sent, SIZE + (5 << 20))

        [entry] = self.hydrant.ok("ls", "--json")["mounts"]
        self.assertEqual(entry["source"], url)
        stat = self.hydrant.ok("stat", "--json", directory)
        self.assertEqual(stat["image"]["unpacked_bytes"], SIZE)
        self.assertEqual(stat["devices"][0]["size"] - SIZE, -SIZE % 4096)
        self.assertIn("file", self.hydrant.ok("stat", directory))
        self.hydrant.ok("umount", directory)

        before = served.sent
        again = self.hydrant.mount(url, "--as", "file")
        self.assertEqual((again / "disk one.img").read_bytes(), self.data)
        self.assertLess(served.sent - before, 1000, "fetched again what was here")
        self.hydrant.ok("umount", again)
        self.nothing_left()

    def test_a_replaced_file_gives_errors_and_never_a_mixture(self):
        for options in ({}, {"etag": None}):
            with self.subTest(options):
                served, url = self.serve(f"/{len(options)}.img", **options)
                path = self.hydrant.mount(url) / f"{len(options)}.img"
                self.assertEqual(self.read(path, 0), self.data[:65536])
                served.data = random.Random(8).randbytes(SIZE)
                served.etag = served.etag and '"2"'
                served.modified = "Mon, 07 Nov 1994 08:49:37 GMT"
                self.fails_to_read(path, 16 << 20)
                self.assertEqual(self.read(path, 0), self.data[:65536])
                self.assertGreater(self.errors(path.parent).get("gone", 0), 0)

                # Also when a new daemon meets it for the first time.
                old = self.hydrant.daemons()["hydrant-fetchd"]
                os.kill(old, signal.SIGKILL)
                wait_until(lambda: self.hydrant.daemons().get("hydrant-fetchd") not in (None, old), what="fetchd is back")
                self.fails_to_read(path, 12 << 20)
                self.assertEqual(self.read(path, 0), self.data[:65536])

                new = self.hydrant.mount(url) / path.name
                self.assertEqual(new.read_bytes(), served.data)
                self.assertEqual(self.read(path, 0), self.data[:65536])

    def test_fetchd_killed_in_the_middle_of_a_read(self):
        served, url = self.serve("/big")
        path = self.hydrant.mount(url) / "big"
        self.server.hold()
        reader = Reader(path)
        old = self.hydrant.daemons()["hydrant-fetchd"]
        wait_until(lambda: self.hydrant.ok("stat", "--json", path.parent)["devices"][0]["reads"] > 0, what="a miss")
        os.kill(old, signal.SIGKILL)
        self.server.release()
        reader.join(60)
        self.assertIsNone(reader.error, self.hydrant.logs())
        self.assertEqual(reader.data, self.data)

    def test_a_local_file(self):
        place = self.temporary() / "50% of it.img"
        place.write_bytes(self.data)
        os.utime(place, (1_600_000_000, 1_600_000_000))
        path = self.hydrant.mount("file://" + str(place).replace("%", "%25")) / place.name
        self.assertEqual(path.stat().st_mtime, 1_600_000_000)
        self.assertEqual(path.read_bytes(), self.data)
        relative = self.temporary()
        self.hydrant.ok("mount", f"file:{place.name}", relative, prefix=["env", "-C", str(place.parent)])
        self.assertEqual((relative / place.name).read_bytes(), self.data)

    def test_a_local_file_that_is_written_to_gives_errors(self):
        place = self.temporary() / "file"
        place.write_bytes(self.data)
        path = self.hydrant.mount(f"file://{place}") / "file"
        self.assertEqual(self.read(path, 0), self.data[:65536])
        with open(place, "r+b") as file:
            file.write(b"other")
        os.utime(place)
        self.fails_to_read(path, 16 << 20)

    def test_an_erofs_image_is_its_own_tree(self):
        tree, image = self.temporary() / "tree", self.temporary() / "image.erofs"
        make_tree(tree)
        subprocess.run(["mkfs.erofs", "--quiet", str(image), str(tree)], check=True, stdout=subprocess.DEVNULL)
        self.data = image.read_bytes()
        served, url = self.serve("/image.erofs")
        directory = self.hydrant.mount(url, "--as", "erofs")
        self.assertLess(served.sent, 4 << 20)
        self.same_tree(tree, directory)
        self.fails(CORRUPT, ["not an EROFS image"], "mount", "--as", "erofs", f"file:{tree}/text", self.temporary())

    def test_an_empty_file(self):
        self.server.add("/empty", b"")
        place = self.temporary() / "empty"
        place.touch()
        for source in (self.server.url("/empty"), f"file://{place}"):
            directory = self.hydrant.mount(source)
            self.assertEqual((directory / "empty").read_bytes(), b"")
            self.assertEqual(self.hydrant.ok("stat", "--json", directory)["devices"], [])
            self.hydrant.ok("umount", directory)

    def test_what_cannot_be_mounted_says_why(self):
        self.serve("/no-ranges")[0].ranges = False
        endless = self.serve("/endless")[0]
        endless.ranges = endless.length = False
        self.serve("/no-version", etag=None, modified=None)
        port = free_port()
        for status, words, source in (
                (NOT_FOUND, ["/missing", "404"], self.server.url("/missing")),
                (UNSUPPORTED, ["/no-ranges", "ranges"], self.server.url("/no-ranges")),
                (UNSUPPORTED, ["/endless", "how long"], self.server.url("/endless")),
                (UNSUPPORTED, ["/no-version", "ETag"], self.server.url("/no-version")),
                (UNREACHABLE, [f"127.0.0.1:{port}"], f"http://127.0.0.1:{port}/x"),
                (NOT_FOUND, ["/nowhere"], "file:///nowhere"),
                (UNSUPPORTED, ["directory", "oci:"], "file:///tmp"),
                (USAGE, ["full path"], "file://relative")):
            with self.subTest(source):
                self.fails(status, words, "mount", source, self.temporary())
        self.fails(UNSUPPORTED, ["file"], "mount", "--as", "file", self.registry.name("small:1"), self.temporary())
        self.fails(UNSUPPORTED, ["image"], "mount", "--as", "image", self.server.url("/no-ranges"), self.temporary())
        self.fails(USAGE, ["index"], "index", self.server.url("/no-ranges"))
        self.nothing_left()

    def test_an_oci_directory_named_from_the_working_directory(self):
        place = images.path("small")
        directory = self.temporary()
        self.hydrant.ok("mount", f"oci:{place.name}", directory, prefix=["env", "-C", str(place.parent)])
        self.assertEqual((directory / "hello").read_text(), "hello\n")

    def test_a_remote_tarball_is_mounted_as_its_tree(self):
        tree = self.temporary() / "tree"
        (tree / "deep/er").mkdir(parents=True)
        (tree / "deep/er/big").write_bytes(self.data[: 3 << 20])
        (tree / "deep/small").write_text("small\n")
        os.symlink("deep/small", tree / "link")
        tar = oci.tar_directory(tree)
        packed = subprocess.run(["zstd", "-q", "-c"], input=tar, stdout=subprocess.PIPE, check=True).stdout
        for name, data in (("a.tar", tar), ("a.tar.gz", gzip.compress(tar, 6)), ("a.tar.zst", packed)):
            served = self.server.add("/" + name, data)
            mounted = self.hydrant.mount(self.server.url("/" + name), "--as", "tar")
            self.same_tree(tree, mounted)
            told = self.hydrant.ok("stat", "--json", mounted)["image"]
            self.assertEqual((told["form"], told["streamed_bytes"]), ("tar", len(data)))
            self.hydrant.ok("umount", mounted)
            sent = served.sent
            mounted = self.hydrant.mount(self.server.url("/" + name), "--as", "tar")
            self.same_tree(tree, mounted)
            self.assertLess(served.sent, sent + 1000, "streamed twice")
            self.hydrant.ok("umount", mounted)
            # Another version is another tree.
            served.data, served.etag = b"no tar at all" * 1000, '"2"'
            self.fails((CORRUPT, UNSUPPORTED), [name], "mount", "--as", "tar", self.server.url("/" + name),
                       self.temporary())
