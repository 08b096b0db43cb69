"""Mounts that the kernel reads under fanotify marks. The front fails open, so each test looks for zeros."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from case import Case, UNSUPPORTED
from sandbox import Hydrant, kill_all, wait_until

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "fault"))
import oracle  # noqa: E402
from kills import FETCHD, HYDRANTD, KEEPER, Kills, reader_of_a_page  # noqa: E402

GUARD = "hydrant-guard"
PAGES = 8192


class Fanotify(Case):
    def mount_oracle(self, pages=PAGES):
        self.source = self.hydrant.base / "oracle.bin"
        oracle.write(self.source, pages)
        return self.hydrant.mount(f"file://{self.source}", "--front", "fanotify")

    def kill(self, *names):
        pids = self.hydrant.daemons()
        kill_all(*(pids[name] for name in names))

    def read_some(self, file, numbers):
        """How many pages were right, and how many an error; anything else fails."""
        right = errors = 0
        for number in numbers:
            try:
                got = os.pread(file.fileno(), 4096, number * 4096)
            except OSError:
                errors += 1
                continue
            self.assertEqual(got, oracle.page(number), f"page {number}, zeros: {got == oracle.ZEROS}")
            right += 1
        return right, errors

    def nothing_in_use(self):
        wait_until(lambda: not self.hydrant.ok("engine", "--json")["cookies"], what="nothing is in use")

    def device(self, directory):
        [device] = self.hydrant.ok("stat", "--json", directory)["devices"]
        return device

    def test_cold_reads_are_right_and_a_complete_file_is_asked_for_no_more(self):
        directory = self.mount_oracle()
        [entry] = self.hydrant.ok("ls", "--json")["mounts"]
        self.assertEqual((entry["state"], entry["front"]), ("live", "fanotify"))
        self.assertEqual(self.device(directory)["front"], "fanotify")
        with open(directory / "oracle.bin", "rb", buffering=0) as file:
            self.assertEqual(self.read_some(file, range(0, PAGES, 37))[1], 0)
            self.assertEqual(self.read_some(file, range(PAGES))[1], 0)
            wait_until(lambda: self.device(directory)["front"] == "file", 20, "the mark is gone")
            counters = lambda: {name: value for name, value in self.hydrant.ok("stat", "--json", directory)["counters"].items()
                                if name.startswith("hydrant_fanotify_")}
            before = counters()
            self.assertEqual(before["hydrant_fanotify_files"], 0)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self.assertEqual(self.read_some(file, range(PAGES)), (PAGES, 0))
            self.assertEqual(counters(), before)
            self.kill(KEEPER, HYDRANTD, FETCHD, GUARD)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self.assertEqual(self.read_some(file, range(PAGES)), (PAGES, 0))

    def test_an_image_is_its_tree(self):
        reference = self.push("one")
        directory = self.hydrant.mount(reference, "--front", "fanotify")
        self.same_tree(self.unpack("one"), directory)
        self.hydrant.ok("umount", directory)
        self.nothing_in_use()
        self.works_afterwards()

    def works_afterwards(self):
        directory = self.hydrant.mount(self.push("small", "good"))
        self.assertEqual((directory / "hello").read_text(), "hello\n")
        self.hydrant.ok("umount", directory)

    def test_readers_wait_for_the_next_hydrantd(self):
        kills = Kills(self.hydrant, PAGES, seed=7, front="fanotify")
        for kind in ("hydrantd", "hydrantd+fetchd", "fetchd", "hydrantd", "keeper", "hydrantd", "keeper+fetchd"):
            kills.storm(1, kind)
        seen = kills.result()
        for what in ("wrong", "zeros", "failed", "hung"):
            self.assertEqual(seen[what], 0, f"{seen}\n{self.hydrant.logs()}")
        [entry] = self.hydrant.ok("ls", "--json")["mounts"]
        self.assertEqual((entry["state"], entry["front"]), ("live", "fanotify"))
        self.hydrant.ok("umount", kills.directory)
        self.nothing_in_use()

    def test_a_guard_that_the_next_keeper_did_not_find_denies_nothing(self):
        kills = Kills(self.hydrant, PAGES, seed=7, front="fanotify")
        left = self.hydrant.daemons()[GUARD]
        os.kill(left, signal.SIGSTOP)
        kills.kill("keeper")
        os.kill(left, signal.SIGCONT)
        for _ in range(2):
            kills.kill("hydrantd")
        seen = kills.result()
        for what in ("wrong", "zeros", "failed", "hung"):
            self.assertEqual(seen[what], 0, f"{seen}\n{self.hydrant.logs()}")
        wait_until(lambda: Kills.gone(left), what="the guard that was left has ended")

    def test_upgrades_under_readers(self):
        kills = Kills(self.hydrant, PAGES, seed=7, front="fanotify")
        for _ in range(2):
            self.hydrant.ok("upgrade")
        seen = kills.result()
        for what in ("wrong", "zeros", "failed", "hung"):
            self.assertEqual(seen[what], 0, f"{seen}\n{self.hydrant.logs()}")

    def test_all_three_killed_means_errors_then_right_bytes(self):
        directory = self.mount_oracle()
        with open(directory / "oracle.bin", "rb", buffering=0) as file:
            self.assertEqual(self.read_some(file, [0]), (1, 0))
            self.kill(KEEPER, HYDRANTD, FETCHD)
            right, errors = self.read_some(file, range(1000, PAGES, 97))
            self.assertGreater(errors, 0)
            self.hydrant.start_keeper()
            wait_until(lambda: self.hydrant.run("ls").returncode == 0, what="hydrantd serves again")
            [entry] = self.hydrant.ok("ls", "--json")["mounts"]
            self.assertEqual(entry["state"], "live", self.hydrant.logs())
            self.assertEqual(self.read_some(file, range(0, PAGES, 53))[1], 0)

    def test_readers_that_wait_when_all_three_are_killed_get_errors(self):
        directory = self.mount_oracle()
        pids = self.hydrant.daemons()
        os.kill(pids[FETCHD], signal.SIGSTOP)
        readers = [reader_of_a_page(directory / "oracle.bin", number) for number in range(100, 4000, 200)]
        waiting = lambda: self.hydrant.ok("stat", "--json", directory)["counters"]["hydrant_fanotify_waiting"]
        wait_until(lambda: waiting() >= len(readers), what="all of them wait")
        self.kill(KEEPER, HYDRANTD)  # in this order: it would start the next one
        os.kill(pids[FETCHD], signal.SIGKILL)
        for reader in readers:
            self.assertEqual(reader.communicate(timeout=20)[0].strip(), "5")

    def test_what_nobody_guarded_is_denied_until_it_is_mounted_anew(self):
        directory = self.mount_oracle()
        with open(directory / "oracle.bin", "rb", buffering=0) as file:
            self.assertEqual(self.read_some(file, [0]), (1, 0))
            self.kill(GUARD, KEEPER, HYDRANTD, FETCHD)  # a keeper that lives would start another guard
            if GUARD in self.hydrant.daemons():
                self.kill(GUARD)
            # Nothing can help a reader now; what it would get is no right bytes (docs/reliability.md).
            os.pread(file.fileno(), 4096, 4000 * 4096)
            self.hydrant.start_keeper()
            wait_until(lambda: self.hydrant.run("ls").returncode == 0, what="hydrantd serves again")
            [entry] = self.hydrant.ok("ls", "--json")["mounts"]
            self.assertEqual(entry["state"], "dead")
            self.assertIn("mount-tainted", self.hydrant.logs())
            for number in (4000, 5000):
                with self.assertRaises(OSError):
                    os.pread(file.fileno(), 4096, number * 4096)
        self.assertEqual(self.hydrant.run("doctor").returncode, 17)
        repaired = self.hydrant.run("doctor", "--repair")
        self.assertEqual(repaired.returncode, 0, f"{repaired.stdout}\n{self.hydrant.logs()}")
        [entry] = self.hydrant.ok("ls", "--json")["mounts"]
        self.assertEqual((entry["state"], entry["front"]), ("live", "fanotify"))
        with open(directory / "oracle.bin", "rb", buffering=0) as file:
            self.assertEqual(self.read_some(file, range(0, PAGES, 41))[1], 0)

    def test_a_stop_leaves_no_zeros_to_who_has_a_file_open(self):
        directory = self.mount_oracle()
        with open(directory / "oracle.bin", "rb", buffering=0) as file:
            self.assertEqual(self.read_some(file, [0]), (1, 0))
            self.hydrant.ok("stop")
            wait_until(lambda: set(self.hydrant.daemons()) == {GUARD}, what="only the guard is left")
            self.assertEqual(self.hydrant.image_mounts(), [])
            right, errors = self.read_some(file, range(1000, PAGES, 97))
            self.assertGreater(errors, 0)
        # The next life takes it in, and lets go of what nobody reads any more.
        self.works_afterwards()
        self.nothing_in_use()
        self.hydrant.ok("stop")
        wait_until(lambda: not self.hydrant.daemons(), what="nobody is left")

    def test_making_room_takes_nothing_from_under_a_mount(self):
        directory = self.mount_oracle()
        with open(directory / "oracle.bin", "rb", buffering=0) as file:
            self.assertEqual(self.read_some(file, range(0, PAGES, 64))[1], 0)
            self.hydrant.ok("gc", "--all")
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self.assertEqual(self.read_some(file, range(0, PAGES, 64))[1], 0)
            self.assertEqual(self.read_some(file, range(1, PAGES, 64))[1], 0)

    def test_mounts_share_a_file_and_each_may_end_first(self):
        first = self.mount_oracle()
        second = self.hydrant.mount(f"file://{self.source}", "--front", "fanotify")
        third = self.hydrant.mount(f"file://{self.source}")
        for directory, begin in ((first, 0), (second, 1), (third, 2)):
            with open(directory / "oracle.bin", "rb", buffering=0) as file:
                self.assertEqual(self.read_some(file, range(begin, PAGES, 331))[1], 0)
        self.hydrant.ok("umount", first)
        with open(second / "oracle.bin", "rb", buffering=0) as file:
            self.assertEqual(self.read_some(file, range(3, PAGES, 331))[1], 0)
        subprocess.run(["umount", str(second)], check=True)
        self.hydrant.ok("umount", third)
        self.assertEqual(self.hydrant.ok("ls", "--json")["mounts"], [])
        self.nothing_in_use()

    def test_a_cache_on_tmpfs_is_refused(self):
        with tempfile.TemporaryDirectory(prefix="hydrant-tmpfs-") as point:
            subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
            try:
                with Hydrant(base=point) as hydrant:
                    source = hydrant.base / "oracle.bin"
                    oracle.write(source, 16)
                    directory = hydrant.new_dir()
                    done = hydrant.run("mount", "--front", "fanotify", f"file://{source}", directory)
                    self.assertEqual(done.returncode, UNSUPPORTED, done)
                    for words in ("tmpfs", "ext4, xfs or btrfs"):
                        self.assertIn(words, done.stderr)
                    self.assertEqual(hydrant.image_mounts(), [])
            finally:
                subprocess.run(["umount", "-l", point])

    def test_without_somebody_who_holds_it_there_is_none(self):
        self.hydrant.start_daemons("--front", "fanotify")
        source = self.hydrant.base / "oracle.bin"
        oracle.write(source, 16)
        directory = self.hydrant.new_dir()
        self.fails(UNSUPPORTED, ["hydrant-keeper", "--front fuse"], "mount", f"file://{source}", directory)
        self.hydrant.ok("mount", "--front", "fuse", f"file://{source}", directory)
        self.assertEqual(self.device(directory)["front"], "fuse")
