"""What every end-to-end test shares."""

import pathlib
import subprocess
import unittest

import images
import oci
from sandbox import Hydrant, Registry

# The table of hydrant(1).
OK, IO, USAGE, NOT_FOUND, DENIED, UNAUTHORIZED, UNREACHABLE, BUSY, NO_SPACE, CORRUPT, UNSUPPORTED, TOO_SLOW = range(12)
NOT_ROOT, NO_DAEMON, INTERRUPTED = 14, 15, 130


class Case(unittest.TestCase):
    """A registry and a hydrant root of its own for each test."""

    def setUp(self):
        self.registry = Registry()
        self.addCleanup(self.registry.close)
        self.hydrant = Hydrant()
        self.addCleanup(self.hydrant.close)

    def push(self, image, name=None, registry=None):
        """Pushes images.path(image), or a directory; returns the reference."""
        directory = image if isinstance(image, pathlib.Path) else images.path(image)
        registry = registry or self.registry
        name = name or directory.name
        oci.push(directory, registry.port, name, auth=registry.auth)
        return registry.name(name) + ":latest"

    def temporary(self):
        return self.hydrant.new_dir()

    def unpack(self, image):
        """The tree that umoci makes of it."""
        directory = image if isinstance(image, pathlib.Path) else images.path(image)
        target = self.temporary() / "rootfs"
        subprocess.run(["umoci", "raw", "unpack", "--image", f"{directory}:latest", str(target)], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return target

    def both_ways(self, directory, expected, *differences):
        """The layout is mounted with nothing known of it; then with indexes alone, so that everything is read in the middle of
        its layers. Yields the latter mount, and what the registry had sent when it was ready."""
        reference = self.push(directory)
        mounted = self.hydrant.mount(reference)
        self.same_tree(expected, mounted, *differences)
        self.hydrant.ok("umount", mounted)
        self.hydrant.forget()
        self.hydrant.ok("index", reference)
        before = self.registry.bytes_sent()
        mounted = self.hydrant.mount(reference)
        sent = self.registry.bytes_sent() - before
        self.same_tree(expected, mounted, *differences)
        return mounted, sent

    def same_tree(self, expected, actual, *differences):
        """`differences` are options of compare_trees.py."""
        compare = pathlib.Path(images.__file__).parent / "compare_trees.py"
        done = subprocess.run(["/usr/bin/python3", str(compare), *differences, str(expected), str(actual)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout[-4000:] + self.hydrant.logs())

    def fails(self, status, words, verb, *arguments, **options):
        """The verb ends with that status and one line that has all the words in it."""
        done = self.hydrant.run(verb, *arguments, **options)
        told = f"status {done.returncode}, said {done.stderr!r}\n{self.hydrant.logs()}"
        statuses = status if isinstance(status, tuple) else (status,)
        self.assertIn(done.returncode, statuses, told)
        self.assertEqual(done.stderr.count("\n"), 1, told)
        self.assertTrue(done.stderr.startswith("hydrant: "), told)
        for word in words:
            self.assertIn(str(word), done.stderr, told)
        self.assertEqual(done.stdout, "", told)

    def nothing_left(self):
        """No mount, and no process but the three that serve the root."""
        self.assertEqual(self.hydrant.image_mounts(), [])
        extra = set(self.hydrant.daemons()) - {"hydrant-keeper", "hydrantd", "hydrant-fetchd"}
        self.assertEqual(extra, set())

    def works_afterwards(self):
        """The same root serves a good image."""
        directory = self.hydrant.mount(self.push("small", "good"))
        self.assertEqual((directory / "hello").read_text(), "hello\n")
        self.assertEqual((directory / "data").stat().st_size, 3 << 20)
        self.assertEqual(len((directory / "data").read_bytes()), 3 << 20)
        self.hydrant.ok("umount", directory)
        self.nothing_left()
