"""hydrantd and what stands beside it are killed under readers. Who holds the descriptors decides what readers get: with
the keeper they wait, without it they get errors; never zeros, never anything else."""

import os
import pathlib
import signal
import subprocess
import sys

from case import Case
from sandbox import kill_all, wait_until

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "fault"))
import oracle  # noqa: E402
from kills import FETCHD, HYDRANTD, KEEPER, Kills  # noqa: E402

PAGES = 8192


class Takeover(Case):
    def storm(self, *kinds, rounds=2):
        kills = Kills(self.hydrant, PAGES, seed=7)
        for _ in range(rounds):
            for kind in kinds:
                kills.storm(1, kind)
        seen = kills.result()
        told = f"{seen}\n{self.hydrant.logs()}"
        for what in ("wrong", "zeros", "failed", "short", "hung"):
            self.assertEqual(seen[what], 0, told)
        self.assertGreater(seen["pages"], 0, told)
        return kills

    def kill(self, *names):
        pids = self.hydrant.daemons()
        for name in names:
            os.kill(pids[name], signal.SIGKILL)
        return pids

    def test_readers_wait_for_the_next_hydrantd(self):
        kills = self.storm("hydrantd", "hydrantd+fetchd")
        [entry] = self.hydrant.ok("ls", "--json")["mounts"]
        self.assertEqual((entry["dir"], entry["state"]), (str(kills.directory), "live"))
        stat = self.hydrant.ok("stat", "--json", kills.directory)
        self.assertEqual(stat["devices"][0]["front"], "fuse")
        self.hydrant.ok("umount", kills.directory)
        self.works_afterwards()

    def test_a_new_keeper_finds_the_hydrantd_of_the_old_one(self):
        self.storm("keeper", "hydrantd", "keeper+fetchd", "hydrantd", rounds=1)
        self.works_afterwards_once_more()

    def works_afterwards_once_more(self):
        for entry in self.hydrant.ok("ls", "--json")["mounts"]:
            self.hydrant.ok("umount", entry["dir"])
        self.works_afterwards()

    def test_nobody_left_to_hold_means_errors_and_no_zeros(self):
        source = self.hydrant.base / "oracle.bin"
        oracle.write(source, PAGES)
        directory = self.hydrant.mount(f"file://{source}")
        with open(directory / "oracle.bin", "rb", buffering=0) as file:
            self.assertEqual(os.pread(file.fileno(), 4096, 0), oracle.page(0))
            pids = self.kill(KEEPER, HYDRANTD, FETCHD)
            for number in range(1000, PAGES, 97):
                try:
                    self.assertEqual(os.pread(file.fileno(), 4096, number * 4096), oracle.page(number))
                except OSError:
                    pass
            wait_until(lambda: not set(pids.values()) & set(self.hydrant.daemons().values()), what="they are gone")
            self.hydrant.start_keeper()
            wait_until(lambda: self.hydrant.run("ls").returncode == 0, what="hydrantd serves again")
            with self.assertRaises(OSError):
                os.pread(file.fileno(), 4096, 4096 * 5000)
        [entry] = self.hydrant.ok("ls", "--json")["mounts"]
        self.assertEqual(entry["state"], "dead")
        self.hydrant.ok("umount", directory)
        self.assertEqual(self.hydrant.image_mounts(), [])
        directory = self.hydrant.mount(f"file://{source}")
        self.assertEqual((directory / "oracle.bin").read_bytes()[4096 * 5000:4096 * 5001], oracle.page(5000))

    def test_the_doctor_finds_what_died_and_mounts_it_anew(self):
        source = self.hydrant.base / "oracle.bin"
        oracle.write(source, 256)
        directory = self.hydrant.mount(f"file://{source}")
        healthy = self.hydrant.ok("doctor", "--json")
        self.assertEqual({each["name"] for each in healthy["processes"]}, {HYDRANTD, FETCHD, KEEPER})
        self.assertTrue(all(check["good"] for check in healthy["checks"]), healthy)
        pids = self.hydrant.daemons()
        kill_all(*(pids[name] for name in (KEEPER, HYDRANTD, FETCHD)))
        ill = self.hydrant.run("doctor")
        self.assertEqual(ill.returncode, 17, ill)
        self.assertIn("hydrantd: does not answer", ill.stdout)
        self.assertIn("hydrant doctor --repair", ill.stdout)
        repaired = self.hydrant.run("doctor", "--repair", "--json")
        self.assertEqual(repaired.returncode, 0, f"{repaired.stdout}\n{self.hydrant.logs()}")
        self.assertIn("mounted anew", repaired.stdout)
        self.assertEqual((directory / "oracle.bin").read_bytes()[4096 * 200:4096 * 201], oracle.page(200))
        self.assertEqual(self.hydrant.run("doctor").returncode, 0)

    def test_a_stop_is_one_for_a_keeper_that_came_later(self):
        source = self.hydrant.base / "oracle.bin"
        oracle.write(source, 16)
        self.hydrant.ok("umount", self.hydrant.mount(f"file://{source}"))
        self.kill(KEEPER)
        wait_until(lambda: KEEPER not in self.hydrant.daemons(), what="the keeper is gone")
        self.hydrant.start_keeper()
        self.hydrant.ok("stop")
        wait_until(lambda: not self.hydrant.daemons(), what="all of them have ended")

    def test_a_stop_is_one_for_a_keeper_that_hydrantd_does_not_know_of(self):
        self.hydrant.start_daemons()
        self.hydrant.start_keeper()
        self.hydrant.ok("stop")
        wait_until(lambda: not self.hydrant.daemons(), what="all of them have ended")

    def test_the_lock_that_a_dead_keeper_left_to_a_child_is_waited_for(self):
        lock = self.hydrant.root / "run/keeper.pid"
        lock.parent.mkdir(parents=True)
        dead = subprocess.Popen(["true"])
        dead.wait()
        lock.write_text(f"{dead.pid}\n")
        with subprocess.Popen(["flock", lock, "sleep", "0.4"]):
            wait_until(lambda: subprocess.run(["flock", "-n", lock, "true"]).returncode != 0, what="somebody holds the lock")
            self.hydrant.start_keeper()
        self.assertIn(KEEPER, self.hydrant.daemons())

    def test_upgrades_under_readers(self):
        kills = Kills(self.hydrant, PAGES, seed=7)
        for _ in range(3):
            before = self.hydrant.daemons()
            now = self.hydrant.ok("upgrade", "--json")
            after = self.hydrant.daemons()
            self.assertEqual(set(after), {HYDRANTD, FETCHD, KEEPER})
            self.assertFalse(set(before.values()) & set(after.values()), "all three are new")
            self.assertEqual({name: now[name]["pid"] for name in (HYDRANTD, FETCHD)},
                             {name: after[name] for name in (HYDRANTD, FETCHD)})
        seen = kills.result()
        for what in ("wrong", "zeros", "failed", "short", "hung"):
            self.assertEqual(seen[what], 0, f"{seen}\n{self.hydrant.logs()}")
        self.hydrant.ok("umount", kills.directory)
        self.works_afterwards()

    def test_what_was_not_in_use_any_more_is_not_brought_back(self):
        """A mount that somebody took down while no hydrantd lived."""
        source = self.hydrant.base / "oracle.bin"
        oracle.write(source, 256)
        directory = self.hydrant.mount(f"file://{source}")
        os.kill(self.hydrant.daemons()[HYDRANTD], signal.SIGKILL)
        subprocess.run(["umount", str(directory)], check=True)
        wait_until(lambda: self.hydrant.run("ls").returncode == 0, what="hydrantd serves again")
        self.assertEqual(self.hydrant.ok("ls", "--json")["mounts"], [])
        self.works_afterwards()
