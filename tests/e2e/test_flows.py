"""The verbs, as people use them one after another."""

import os
import signal
import subprocess
import threading
import time

from case import BUSY, CORRUPT, INTERRUPTED, NO_DAEMON, NOT_FOUND, TOO_SLOW, USAGE, Case
from sandbox import BIN, Relay, wait_until


class Flows(Case):
    def test_mount_read_list_stat_umount_stop(self):
        reference = self.push("many")
        directory = self.temporary()
        told = self.hydrant.ok("mount", "--json", reference, directory)
        self.assertEqual(told["dir"], str(directory))
        self.assertEqual(len(told["devices"]), 4)
        self.assertEqual((directory / "srv/again/back").read_text(), "again\n")

        [entry] = self.hydrant.ok("ls", "--json")["mounts"]
        self.assertEqual((entry["dir"], entry["state"], entry["devices"]), (str(directory), "live", 4))
        self.assertIn("many", entry["source"])
        self.assertIn(str(directory), self.hydrant.ok("ls"))

        stat = self.hydrant.ok("stat", "--json", directory)
        self.assertEqual(len(stat["devices"]), 4)
        self.assertEqual(len(stat["image"]["layers"]), 4)
        self.assertTrue(stat["image"]["manifest"].startswith("sha256:"))
        self.assertIn("fetched_bytes", stat["fetch"])
        self.hydrant.ok("stat", directory)

        engine = self.hydrant.ok("engine", "--json", "--trace", "ondemand")
        self.assertEqual([cache["state"] for cache in engine["caches"]], ["A"])
        self.assertEqual(len(engine["cookies"]), 5)
        self.assertIn("ondemand_read", engine["trace"])
        self.assertIn("trace none", self.hydrant.ok("engine", "--trace", "none"))
        before_the_verb = subprocess.run([BIN / "hydrant", "--root", self.hydrant.root, "ls"], stdout=subprocess.PIPE, text=True)
        self.assertIn(str(directory), before_the_verb.stdout)

        self.hydrant.ok("umount", directory)
        self.assertEqual(os.listdir(directory), [])
        self.assertEqual(self.hydrant.ok("ls", "--json")["mounts"], [])
        self.nothing_left()

        self.hydrant.ok("stop")
        self.assertEqual(self.hydrant.daemons(), {}, "all have ended when it returns")
        self.assertFalse({"fetchd.sock", "fetchd.pid", "keeper.sock"} & set(os.listdir(self.hydrant.root / "run")))
        self.assertEqual([p for p in self.mount_points() if p.startswith(str(self.hydrant.base))], [])

    def test_a_mount_is_not_forgotten_while_others_look(self):
        reference = self.push("one")
        self.hydrant.ok("index", reference)
        done = threading.Event()

        def look():
            while not done.is_set():
                self.hydrant.run("ls")

        lookers = [threading.Thread(target=look) for _ in range(2)]
        for looker in lookers:
            looker.start()
        try:
            for _ in range(12):
                directory = self.hydrant.mount(reference)
                self.assertEqual([m["dir"] for m in self.hydrant.ok("ls", "--json")["mounts"]], [str(directory)])
                self.hydrant.ok("umount", directory)
        finally:
            done.set()
            for looker in lookers:
                looker.join()
        self.nothing_left()

    def test_metadata_damaged_on_disk_is_refused_once_and_fetched_anew(self):
        reference = self.push("one")
        fsid = self.hydrant.ok("mount", "--json", reference, self.temporary())["fsid"]
        self.hydrant.ok("stop")
        wait_until(lambda: not self.hydrant.daemons(), what="daemons end")
        [file] = self.hydrant.root.glob(f"cache/*/@*/D{fsid}")
        with open(file, "r+b") as damaged:
            damaged.seek(2000)
            damaged.write(b"damage")
        self.fails(CORRUPT, [fsid, "mount again"], "mount", reference, self.temporary())
        directory = self.hydrant.mount(reference)
        self.same_tree(self.unpack("one"), directory)

    def mount_points(self):
        with open("/proc/self/mountinfo") as file:
            return [line.split()[4] for line in file]

    def test_an_index_makes_the_first_mount_lazy(self):
        with Relay(self.registry.port) as relay:
            self.push("one")
            reference = self.registry.name("one:latest", relay.port)
            told = self.hydrant.ok("index", "--json", reference)
            self.assertTrue(all(layer["lazy"] for layer in told["image"]["layers"]), told)
            before = relay.received
            directory = self.hydrant.mount(reference)
            self.assertTrue((directory / "etc/debian_version").read_text().strip())
            share = (relay.received - before) / told["image"]["compressed_bytes"]
            self.assertLess(share, 0.3, f"{relay.received - before} bytes")

    def test_a_mount_without_an_index_downloads_nothing_twice_and_the_next_one_nothing_at_all(self):
        with Relay(self.registry.port) as relay:
            self.push("one")
            reference = self.registry.name("one:latest", relay.port)
            directory = self.temporary()
            told = self.hydrant.ok("mount", "--json", reference, directory)
            stored = told["image"]["compressed_bytes"]
            self.same_tree(self.unpack("one"), directory)
            self.assertLess(relay.received, stored * 1.02 + 65536)
            self.hydrant.ok("umount", directory)
            before = relay.received
            self.hydrant.ok("mount", reference, directory)
            self.same_tree(self.unpack("one"), directory)
            self.assertLess(relay.received - before, 65536)

    def test_layers_are_shared_between_images(self):
        with Relay(self.registry.port) as relay:
            self.push("one")
            self.push("many")
            self.hydrant.mount(self.registry.name("one:latest", relay.port))
            before = relay.received
            directory = self.temporary()
            told = self.hydrant.ok("mount", "--json", self.registry.name("many:latest", relay.port), directory)
            largest = max(layer["size"] for layer in told["image"]["layers"])
            self.assertLess(relay.received - before, told["image"]["compressed_bytes"] - largest + 65536)
            self.same_tree(self.unpack("many"), directory)

    def test_two_mounts_of_one_image_at_once(self):
        reference = self.push("small")
        directories = [self.temporary(), self.temporary()]
        runs = [subprocess.Popen(self.hydrant.command("mount", reference, d), env=self.hydrant.env,
                                 stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for d in directories]
        for run in runs:
            self.assertEqual(run.wait(60), 0, run.stderr.read() + self.hydrant.logs())
            run.stderr.close()
        for directory in directories:
            self.assertEqual((directory / "hello").read_text(), "hello\n")
        self.assertEqual(len(self.hydrant.ok("ls", "--json")["mounts"]), 2)

    def test_umount_of_a_busy_mount_says_so_and_lazy_works(self):
        directory = self.hydrant.mount(self.push("small"))
        with open(directory / "data", "rb") as file:
            self.fails(BUSY, [directory, "--lazy"], "umount", directory)
            self.hydrant.ok("umount", "--lazy", directory)
            self.assertEqual(os.listdir(directory), [])
            self.assertEqual(len(file.read()), 3 << 20)
        self.works_afterwards()

    def test_umount_and_stat_of_what_is_no_mount(self):
        self.hydrant.mount(self.push("small"))
        other = self.temporary()
        self.fails(NOT_FOUND, [other], "umount", other)
        self.fails(NOT_FOUND, [other], "stat", other)

    def test_without_daemons_reading_verbs_say_so(self):
        for verb, *arguments in (("ls",), ("stat", "/"), ("umount", "/"), ("stop",)):
            self.fails(NO_DAEMON, [self.hydrant.root], verb, *arguments)
        self.fails(NO_DAEMON, [self.hydrant.root], "mount", "--no-start", "localhost:1/x", self.temporary())

    def test_wrong_arguments(self):
        for arguments in (("mount",), ("mount", "x"), ("umount",), ("explode",), ("mount", "--as", "cake", "x", "/")):
            done = self.hydrant.run(*arguments)
            self.assertEqual(done.returncode, USAGE, arguments)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_an_oci_directory_is_a_source(self):
        import images
        directory = self.hydrant.mount(f"oci:{images.path('small')}:latest")
        self.assertEqual((directory / "hello").read_text(), "hello\n")

    def test_ctrl_c_cancels_and_leaves_nothing(self):
        with Relay(self.registry.port) as relay:
            self.push("one")
            reference = self.registry.name("one:latest", relay.port)
            self.hydrant.ok("index", self.push("small"))  # the daemons run
            relay.hold()
            run = subprocess.Popen(self.hydrant.command("mount", reference, self.temporary()), env=self.hydrant.env,
                                   stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
            with run.stderr:
                time.sleep(0.3)  # anywhere in the middle will do
                run.send_signal(signal.SIGINT)
                self.assertEqual(run.wait(5), INTERRUPTED, run.stderr.read())
            relay.release()
            self.nothing_left()
            directory = self.hydrant.mount(reference)
            self.same_tree(self.unpack("one"), directory)

    def test_every_verb_answers_while_a_daemon_is_stuck(self):
        directory = self.hydrant.mount(self.push("small"))
        pids = self.hydrant.daemons()
        for daemon, verbs in (("hydrant-fetchd", [("ls",), ("stat", directory), ("version",)]),
                              ("hydrantd", [("ls",), ("stat", directory), ("umount", directory), ("stop",)])):
            os.kill(pids[daemon], signal.SIGSTOP)
            try:
                for verb in verbs:
                    start = time.monotonic()
                    done = self.hydrant.run(*verb)
                    self.assertLess(time.monotonic() - start, 2.5, verb)
                    self.assertEqual(done.returncode, TOO_SLOW if daemon == "hydrantd" else 0, (verb, done.stderr))
            finally:
                os.kill(pids[daemon], signal.SIGCONT)
        # hydrantd was told to unmount while it stood still; nobody took that back.
        wait_until(lambda: not self.hydrant.image_mounts(), what="the umount is done")
        self.works_afterwards()
