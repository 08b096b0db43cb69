"""Programs that were written for the kernel's /dev/cachefiles, run unmodified by `hydrant cachefiles-exec`."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

from sandbox import BIN, processes_naming, small_disk, wait_until

USAGE, NOT_FOUND, NOT_SERVABLE = 2, 3, 16
CACHEFILESD = "/sbin/cachefilesd"
# A check that cachefilesd 0.10.10 makes of its table takes every pointer with bits 31 to 28 equal to 6 for a freed one, and
# aborts. Where addresses are random, one heap in 16 has such pointers.
FIXED_ADDRESSES = ("setarch", "-R")


def gone(pid):
    """A process that its parent left to us, the first of this namespace, or to another."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return not pathlib.Path(f"/proc/{pid}").exists()


class Case(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="hydrant-exec-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.socket = self.directory / "engine.sock"

    def exec(self, *program, options=()):
        return [str(BIN / "hydrant"), "cachefiles-exec", *map(str, options), "--", *map(str, program)]

    def run_exec(self, *program, options=(), **more):
        return subprocess.run(self.exec(*program, options=options), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=60, **more)

    def shared(self):
        return ("--socket", self.socket)

    def engine_ends(self):
        """And leaves nothing."""
        wait_until(lambda: not list(self.directory.glob("engine.sock*")), what="the engine has ended")
        wait_until(lambda: not processes_naming(str(self.socket)), what="its process has ended")

    def admin(self, request):
        """One request to the engine's admin socket, and its final answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(f"{self.socket}.admin")
            connection.sendall(json.dumps(request).encode() + b"\n")
            for line in connection.makefile():
                answer = json.loads(line)
                if "event" not in answer:
                    return answer

    def fill(self, cache, objects, size):
        """An earlier run of an on-demand daemon: so many objects, each complete."""
        content = self.directory / "content"
        content.write_bytes(os.urandom(1 << 16) * (size >> 16))
        mount_point = self.directory / "mount"
        mount_point.mkdir()
        daemon = subprocess.Popen(self.exec(BIN / "ondemand_daemon", cache, content, objects, options=self.shared()),
                                  stdout=subprocess.PIPE, text=True)
        self.addCleanup(daemon.stdout.close)
        self.addCleanup(daemon.kill)
        self.assertEqual(daemon.stdout.readline(), "ready\n")
        for number in range(objects):
            # Metadata with a digest is fetched whole before it is looked at, and then it is no EROFS: a consumer as any
            # other.
            answer = self.admin({"op": "mount", "dir": str(mount_point), "fsid": f"object-{number}", "domain_id": "d",
                                 "meta_digest": hashlib.sha256(content.read_bytes()).hexdigest()})
            self.assertEqual(answer["error"]["code"], "corrupt", answer)
        self.assertEqual(daemon.wait(60), 0)
        self.engine_ends()


class Exec(Case):
    def test_the_status_is_the_programs(self):
        self.assertEqual(self.run_exec("sh", "-c", "exit 7").returncode, 7)
        done = self.run_exec("sh", "-c", "echo out; echo err >&2; kill -9 $$")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (-signal.SIGKILL, "out\n", "err\n"))

    def test_programs_that_cannot_be_served_are_told_so(self):
        static = self.directory / "static"
        shutil.copy(BIN / "hydrant-keeper", static)  # linked so
        script = self.directory / "script"
        script.write_text(f"#!{static}\n")
        script.chmod(0o755)
        foreign = self.directory / "setuid"
        shutil.copy("/bin/true", foreign)
        os.chown(foreign, 65534, 65534)
        foreign.chmod(0o4755)
        for program, word in ((static, "statically linked"), (script, "statically linked"), (foreign, "setuid")):
            done = self.run_exec(program)
            self.assertEqual(done.returncode, NOT_SERVABLE, done.stderr)
            self.assertIn(word, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)
        self.assertEqual(self.run_exec("no-such-program").returncode, NOT_FOUND)
        self.assertEqual(self.run_exec("true", options=("--socket", script)).returncode, USAGE)
        self.assertTrue(script.exists())

    def test_an_engine_is_private_or_shared(self):
        ask = "import os; os.open('/dev/cachefiles', os.O_RDWR); print('opened', flush=True); input()"
        def start(*options):
            process = subprocess.Popen(self.exec("/usr/bin/python3", "-c", ask, options=options), text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.addCleanup(lambda: (process.stdout.close(), process.stderr.close(), process.stdin.close()))
            self.addCleanup(process.kill)
            return process
        first = start(*self.shared())
        self.assertEqual(first.stdout.readline(), "opened\n")
        second = start(*self.shared())
        self.assertIn("Device or resource busy", second.communicate(timeout=60)[1])
        other = start()
        self.assertEqual(other.stdout.readline(), "opened\n", "an engine of its own")
        status = self.admin({"op": "status"})
        self.assertTrue(status["ok"], status)
        for process in (first, other):
            process.communicate("\n", timeout=60)
            self.assertEqual(process.returncode, 0)
        self.engine_ends()
        wait_until(lambda: not processes_naming("/hydrant-engine-"), what="the private engine has ended")

    def test_the_engine_outlives_the_first_of_its_users(self):
        """A daemon that leaves its parent behind and closes what it does not know."""
        pid = self.directory / "pid"
        program = ("import os, time\n"
                   "if os.fork(): os._exit(0)\n"
                   "os.setsid(); os.closerange(3, 4096)\n"
                   "null = os.open('/dev/null', os.O_RDWR)\n"
                   "for fd in range(3): os.dup2(null, fd)\n"
                   "fd = os.open('/dev/cachefiles', os.O_RDWR)\n"
                   f"open('{pid}.new', 'w').write(str(os.getpid())); os.rename('{pid}.new', '{pid}')\n"
                   "time.sleep(1000)\n")
        done = self.run_exec("/usr/bin/python3", "-c", program, options=self.shared(), env=dict(os.environ))
        self.assertEqual(done.returncode, 0, done.stderr)
        daemon = int(wait_until(lambda: pid.exists() and pid.read_text(), what="the daemon has opened the device"))
        self.assertTrue(self.admin({"op": "status"})["ok"])
        os.kill(daemon, signal.SIGKILL)
        wait_until(lambda: gone(daemon), what="it has ended")
        self.engine_ends()

    def test_cachefilesd_culls_a_disk_that_is_full(self):
        """Debian's own, in original mode, over what an on-demand run has left."""
        with small_disk(96) as disk:
            self.fill(disk, 14, 4 << 20)
            def objects():
                return [path for path in (disk / "cache").rglob("D*") if path.is_file()]
            def free_percent():
                status = os.statvfs(disk)
                return 100 * status.f_bavail / status.f_blocks
            self.assertEqual(len(objects()), 14)
            self.assertLess(free_percent(), 50, "full enough")
            oldest = sorted(objects(), key=lambda path: path.name)[:3]
            for path in oldest:
                os.utime(path, (1_000_000_000, 1_000_000_000))
            configuration = self.directory / "cachefilesd.conf"
            configuration.write_text(f"dir {disk}\ntag test\nbrun 70%\nbcull 60%\nbstop 5%\n"
                                     "frun 7%\nfcull 5%\nfstop 1%\nculltable 12\n")
            pid_file = self.directory / "pid"
            # It leaves its parent behind and goes on in the background.
            done = self.run_exec(*FIXED_ADDRESSES, CACHEFILESD, "-s", "-f", configuration, "-p", pid_file,
                                 options=self.shared(), stdin=subprocess.DEVNULL)
            self.assertEqual(done.returncode, 0, done.stderr)
            pid = int(wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), what="its pid file"))
            with contextlib.ExitStack() as stack:
                stack.callback(lambda: gone(pid) or os.kill(pid, signal.SIGKILL))
                wait_until(lambda: self.assertFalse(gone(pid), "it has died") or free_percent() >= 70, 60, "it has culled")
                self.assertFalse(any(path.exists() for path in oldest), "the oldest first")
                left = len(objects())
                self.assertGreater(left, 0, "and no more than it must")
                os.kill(pid, signal.SIGTERM)
                wait_until(lambda: gone(pid), what="it has ended")
            self.engine_ends()
            self.assertEqual(len(objects()), left)


if __name__ == "__main__":
    unittest.main()
