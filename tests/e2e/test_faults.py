"""Daemons die in the middle of reads; readers wait and get right bytes."""

import os
import signal
import subprocess
import threading
import time

from case import TOO_SLOW, Case
from sandbox import Relay, wait_until


class Reader(threading.Thread):
    """Reads a whole file in the background."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.data, self.error = path, None, None
        self.start()

    def run(self):
        try:
            with open(self.path, "rb") as file:
                self.data = file.read()
        except OSError as error:
            self.error = error


class Faults(Case):
    def slow_mount(self, relay):
        self.push("many")
        reference = self.registry.name("many:latest", relay.port)
        self.hydrant.ok("index", reference)
        return self.hydrant.mount(reference)

    def finish(self, reader, expected):
        reader.join(60)
        self.assertFalse(reader.is_alive(), "the reader hangs\n" + self.hydrant.logs())
        self.assertIsNone(reader.error, self.hydrant.logs())
        self.assertEqual(reader.data, expected)

    def kill_fetchd(self):
        pid = self.hydrant.daemons()["hydrant-fetchd"]
        os.kill(pid, signal.SIGKILL)
        return pid

    def test_fetchd_killed_in_the_middle_of_a_read(self):
        expected = (self.unpack("many") / "srv/random.bin").read_bytes()
        with Relay(self.registry.port) as relay:
            directory = self.slow_mount(relay)
            before = relay.received
            relay.rate = 1 << 20
            reader = Reader(directory / "srv/random.bin")
            wait_until(lambda: relay.received > before + (1 << 19), what="the read is under way")
            old = self.kill_fetchd()
            relay.rate = None
            wait_until(lambda: self.hydrant.daemons().get("hydrant-fetchd") not in (None, old), what="fetchd is back")
            self.finish(reader, expected)

    def test_fetchd_killed_again_and_again(self):
        expected = (self.unpack("many") / "srv/random.bin").read_bytes()
        with Relay(self.registry.port, 4 << 20) as relay:
            directory = self.slow_mount(relay)
            relay.rate = 1 << 20
            reader = Reader(directory / "srv/random.bin")
            for _ in range(3):
                before = relay.received
                wait_until(lambda: relay.received > before + (1 << 18) or not reader.is_alive(), what="bytes flow")
                old = self.kill_fetchd()
                wait_until(lambda: self.hydrant.daemons().get("hydrant-fetchd") not in (None, old), 20, "fetchd is back")
            relay.rate = None
            self.finish(reader, expected)

    def test_fetchd_killed_in_the_middle_of_a_first_mount(self):
        with Relay(self.registry.port, 2 << 20) as relay:
            self.push("one")
            reference = self.registry.name("one:latest", relay.port)
            self.hydrant.ok("index", self.push("small"))
            directory = self.temporary()
            result = []
            mounting = threading.Thread(target=lambda: result.append(self.hydrant.run("mount", reference, directory)))
            mounting.start()
            wait_until(lambda: relay.received > 1 << 20, what="the layer is streaming")
            old = self.kill_fetchd()
            mounting.join(60)
            self.assertNotEqual(result[0].returncode, 0)
            self.assertEqual(result[0].stderr.count("\n"), 1, result[0].stderr)
            wait_until(lambda: self.hydrant.daemons().get("hydrant-fetchd") not in (None, old), what="fetchd is back")
            self.nothing_left()
            relay.rate = None
            self.hydrant.ok("mount", reference, directory)
            self.same_tree(self.unpack("one"), directory)

    def test_an_origin_that_stalls_fails_reads_in_time_and_comes_back(self):
        expected = (self.unpack("many") / "srv/random.bin").read_bytes()
        self.hydrant.start_daemons("--read-limit", "30", fetchd=("--read-limit", "3"))
        with Relay(self.registry.port) as relay:
            directory = self.slow_mount(relay)
            path = directory / "srv/random.bin"
            relay.hold()
            reader = Reader(path)
            reader.join(20)
            self.assertFalse(reader.is_alive(), "the reader hangs")
            self.assertIsNotNone(reader.error)
            errors = self.hydrant.ok("stat", "--json", directory)["fetch"]["errors"]
            self.assertGreater(errors.get("too-slow", 0), 0, errors)
            relay.release()
            wait_until(lambda: self.reads(path, 0), what="bytes come again")
            self.finish(Reader(path), expected)

    def reads(self, path, offset):
        try:
            with open(path, "rb", buffering=0) as file:
                return os.pread(file.fileno(), 4096, offset)
        except OSError:
            return b""

    def waits_once(self, limit):
        """The kernel asks two or three times for what does not come; one wait answers them all."""
        with Relay(self.registry.port) as relay:
            path = self.slow_mount(relay) / "srv/random.bin"
            relay.hold()
            for read in ("import os, sys; os.pread(os.open(sys.argv[1], 0), 65536, 1 << 20)",
                         "import mmap, os, sys; mmap.mmap(os.open(sys.argv[1], 0), 0, prot=1)[3 << 20]"):
                start = time.monotonic()
                done = subprocess.run(["/usr/bin/python3", "-c", read, path], stderr=subprocess.DEVNULL)
                self.assertNotEqual(done.returncode, 0)
                self.assertLess(time.monotonic() - start, 2 * limit - 1, read)

    def test_nobody_waits_twice_for_an_origin_that_stalls(self):
        self.hydrant.start_daemons("--read-limit", 60, fetchd=("--read-limit", 6))
        self.waits_once(6)

    def test_nobody_waits_twice_for_a_user_daemon_that_is_too_slow(self):
        self.hydrant.start_daemons("--read-limit", 6, fetchd=("--read-limit", 60))
        self.waits_once(6)

    def test_who_asks_a_daemon_that_stands_still_is_told_so(self):
        """gc, too, whose work may take minutes."""
        self.works_afterwards()
        hydrantd = self.hydrant.daemons()["hydrantd"]
        os.kill(hydrantd, signal.SIGSTOP)
        try:
            for verb in ("ls", "gc", "stop"):
                self.assertEqual(self.hydrant.run(verb, timeout=60).returncode, TOO_SLOW, verb)
        finally:
            os.kill(hydrantd, signal.SIGCONT)
        self.hydrant.ok("gc")

    def test_a_reader_that_waits_can_be_killed(self):
        with Relay(self.registry.port) as relay:
            directory = self.slow_mount(relay)
            relay.hold()
            with subprocess.Popen(["cat", directory / "srv/random.bin"], stdout=subprocess.DEVNULL) as reader:
                wait_until(lambda: self.waits(reader.pid), what="the reader waits in the kernel")
                reader.kill()
                reader.wait(5)
            relay.release()

    def waits(self, pid):
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] in "SD"
