"""A hydrantd that cannot start again: readers wait as long as the keeper holds what they wait for (--hold), then they get
errors and never zeros; a hydrantd that works again serves."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

from case import Case
from sandbox import BIN, kill_all, wait_until

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "fault"))
import oracle  # noqa: E402
from kills import FETCHD, HYDRANTD, KEEPER, reader_of_a_page  # noqa: E402

PAGES = 8192
EIO = "5"


class Hold(Case):
    def setUp(self):
        super().setUp()
        self.programs = self.hydrant.new_dir()
        for name in (HYDRANTD, FETCHD, KEEPER):
            shutil.copy(BIN / name, self.programs)
        self.starts = self.programs / "starts"
        keeper = self.programs / KEEPER
        subprocess.run([keeper, "--root", self.hydrant.root, "--hold", "2"], env=self.hydrant.env, check=True)
        wait_until(self.both_are_ready, what="hydrantd and hydrant-fetchd have found each other")

    def both_are_ready(self):
        versions = json.loads(self.hydrant.run("version", "--json").stdout)
        return all((versions[name] or {}).get("attached") for name in (HYDRANTD, FETCHD))

    def put_in_place(self, program, text=None):
        """As a package manager does it: by rename."""
        new = self.programs / "new"
        if text is None:
            shutil.copy(program, new)
        else:
            new.write_text(text)
            new.chmod(0o755)
        new.rename(self.programs / HYDRANTD)

    def readers_wait(self, directory, front):
        """Readers of what is not here, that hydrantd knows of."""
        os.kill(self.hydrant.daemons()[FETCHD], signal.SIGSTOP)
        readers = [reader_of_a_page(directory / "oracle.bin", number) for number in range(1000, 5000, 1000)]
        counter = "hydrant_fanotify_waiting" if front == "fanotify" else "hydrant_front_waiting"
        wait_until(lambda: self.hydrant.ok("stat", "--json", directory)["counters"][counter] >= len(readers),
                   what="all of them wait")
        return readers

    def fails_to_start(self, front, script):
        source = self.hydrant.base / "oracle.bin"
        oracle.write(source, PAGES)
        directory = self.hydrant.mount(f"file://{source}", "--front", front)
        with open(directory / "oracle.bin", "rb", buffering=0) as file:
            self.assertEqual(os.pread(file.fileno(), 4096, 0), oracle.page(0))
        readers = self.readers_wait(directory, front)
        self.put_in_place(None, f"#!/bin/sh\necho >> {self.starts}\n{script}\n")
        kill_all(self.hydrant.daemons()[HYDRANTD])
        wait_until(self.starts.exists, what="the keeper tries the next one")
        readers.append(reader_of_a_page(directory / "oracle.bin", 6000))  # the one who comes when there is nobody
        for reader in readers:
            self.assertEqual(reader.communicate(timeout=60)[0].strip(), EIO, self.hydrant.logs())

        self.put_in_place(BIN / HYDRANTD)
        os.kill(self.hydrant.daemons()[FETCHD], signal.SIGCONT)
        wait_until(self.good_one_serves, 60, "the good one serves")
        return directory

    def good_one_serves(self):
        """One that was started before it was replaced may stand still; who holds nothing for it lets it."""
        if pid := self.hydrant.daemons().get("sh"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self.hydrant.run("ls").returncode == 0

    def is_mounted_anew(self, directory):
        [entry] = self.hydrant.ok("ls", "--json")["mounts"]
        self.assertEqual(entry["state"], "dead")
        self.hydrant.ok("umount", directory)
        self.is_right(self.hydrant.mount(f"file://{self.hydrant.base}/oracle.bin"))

    def is_right(self, directory):
        with open(directory / "oracle.bin", "rb", buffering=0) as file:
            for number in range(0, PAGES, 41):
                self.assertEqual(os.pread(file.fileno(), 4096, number * 4096), oracle.page(number), number)

    def lives_again(self, directory):
        [entry] = self.hydrant.ok("ls", "--json")["mounts"]
        self.assertEqual(entry["state"], "live", self.hydrant.logs())
        self.is_right(directory)

    def test_an_upgrade_keeps_the_limit(self):
        self.hydrant.ok("upgrade")
        words = pathlib.Path(f"/proc/{self.hydrant.daemons()[KEEPER]}/cmdline").read_bytes().split(b"\0")
        self.assertEqual(words[words.index(b"--hold") + 1], b"2")

    def test_one_that_ends_at_once(self):
        self.is_mounted_anew(self.fails_to_start("fuse", "exit 1"))
        self.works_afterwards_once_more()

    def test_one_that_is_never_ready(self):
        self.is_mounted_anew(self.fails_to_start("fuse", "kill -STOP $$"))

    def test_one_that_ends_at_once_under_marks(self):
        self.lives_again(self.fails_to_start("fanotify", "exit 1"))

    def test_one_that_is_never_ready_under_marks(self):
        self.lives_again(self.fails_to_start("fanotify", "kill -STOP $$"))

    def works_afterwards_once_more(self):
        for entry in self.hydrant.ok("ls", "--json")["mounts"]:
            self.hydrant.ok("umount", entry["dir"])
        self.works_afterwards()
