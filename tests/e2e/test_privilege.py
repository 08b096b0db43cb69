"""What each daemon may do: read from the kernel, and tried by a program that gives up what hydrant-fetchd gives up."""

import contextlib
import errno
import json
import os
import pathlib
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import unittest

from case import Case
from sandbox import BIN, Registry, wait_until

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "fault"))
import oracle  # noqa: E402

HYDRANTD, FETCHD, KEEPER = "hydrantd", "hydrant-fetchd", "hydrant-keeper"
OWN_UID = 87539
STRANGER = 65534

# What an attacker inside hydrant-fetchd would try; each must fail with one of these.
REFUSED = {errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT, errno.ENOSYS, errno.EXDEV}
NEEDED = {"write-own-state", "make-own-directory", "read-passwd", "write-null", "tcp", "socket-pair", "memory-file",
          "thread", "helper"}


def status(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in lines}


def user_of_fetchd():
    """The user that it becomes by default."""
    try:
        return pwd.getpwnam("hydrant").pw_uid
    except KeyError:
        return OWN_UID


def ask(path, request, uid=0):
    """One request on an admin socket, as that user: the answer."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(path))
                with contextlib.suppress(BrokenPipeError):  # refused before it has asked
                    connection.sendall(json.dumps(request).encode() + b"\n")
                os.write(writer, connection.makefile().readline().encode())
        except OSError as error:
            os.write(writer, json.dumps({"errno": error.errno}).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        return json.loads(answer.read() or "{}")


class Privilege(Case):
    def start(self):
        """A mount of a file, and the daemons that serve it."""
        source = self.hydrant.base / "oracle.bin"
        oracle.write(source, 64)
        directory = self.hydrant.mount(f"file://{source}")
        self.assertEqual((directory / "oracle.bin").read_bytes()[:4096], oracle.page(0))
        return self.hydrant.daemons()

    def test_each_daemon_has_what_it_needs_and_no_more(self):
        pids = self.start()
        fetchd, hydrantd = status(pids[FETCHD]), status(pids[HYDRANTD])
        self.assertEqual(set(fetchd["Uid"].split()), {str(user_of_fetchd())})
        self.assertEqual(fetchd["Groups"], "")
        self.assertEqual(int(fetchd["CapEff"], 16), 1 << 2, "dac_read_search alone")
        self.assertEqual(int(fetchd["CapBnd"], 16), 1 << 2)
        self.assertEqual(fetchd["NoNewPrivs"], "1")
        self.assertEqual(fetchd["Seccomp"], "2")
        # sys_admin, dac_override, dac_read_search, fowner.
        self.assertEqual(int(hydrantd["CapEff"], 16), 1 << 21 | 1 << 1 | 1 << 2 | 1 << 3)
        self.assertEqual(hydrantd["CapEff"], hydrantd["CapBnd"])
        self.assertEqual(hydrantd["NoNewPrivs"], "1")

    def test_the_doctor_tells_what_the_kernel_tells(self):
        pids = self.start()
        told = {each["name"]: each for each in self.hydrant.ok("doctor", "--json")["processes"]}
        self.assertEqual({name: each["pid"] for name, each in told.items()}, pids)
        self.assertEqual(told[FETCHD]["capabilities"], "dac_read_search")
        self.assertEqual(told[FETCHD]["bounding"], "dac_read_search")
        self.assertEqual(told[FETCHD]["seccomp"], "filter")
        self.assertTrue(told[FETCHD]["no_new_privileges"])
        self.assertIn(str(self.hydrant.root / "fetch"), told[FETCHD]["open_for_writing"])
        self.assertEqual(told[HYDRANTD]["capabilities"], "dac_override,dac_read_search,fowner,sys_admin")
        self.assertEqual(told[HYDRANTD]["seccomp"], "off")
        self.assertIn("/dev/fuse", told[HYDRANTD]["open_for_writing"])
        if told[FETCHD]["landlock"]:
            self.assertIn(str(self.hydrant.root / "fetch"), told[FETCHD]["landlock_writes"])
        for words in ("capabilities  dac_read_search; at most dac_read_search, and no new ones", "a seccomp filter"):
            self.assertIn(words, self.hydrant.ok("doctor"))

    def probe(self, *unconfined):
        victim = self.start()[HYDRANTD]
        foreign = self.temporary()
        foreign.chmod(0o777)
        (foreign / "file").write_text("not yours")
        (foreign / "file").chmod(0o666)
        backing = next(path for path in (self.hydrant.root / "cache").rglob("D*") if path.is_file())
        (self.hydrant.root / "trust").mkdir(exist_ok=True)
        done = subprocess.run([BIN / "confined_probe", self.hydrant.root, foreign, backing, str(victim), *unconfined],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(backing.exists())
        return json.loads(done.stdout), done.stderr, foreign / "file"

    def test_an_attacker_in_fetchd_gets_nowhere(self):
        outcome, said, foreign = self.probe()
        self.assertEqual(said, "", "nothing is missing on a kernel that has everything")
        self.assertEqual(foreign.read_text(), "not yours")
        self.assertGreaterEqual(outcome.pop("landlock-version"), 1)
        self.assertEqual(outcome.pop("status")["CapPrm"], f"{1 << 2:016x}")
        for attempt, error in outcome.items():
            if attempt in NEEDED:
                self.assertEqual(error, 0, f"{attempt}: {os.strerror(error)}")
            else:
                self.assertIn(error, REFUSED, f"{attempt}: {os.strerror(error) if error else 'went through'}")

    def test_each_part_alone_keeps_the_cache_safe(self):
        """Whatever part a kernel does not have, or a setting leaves out, the others hold the worst off."""
        for part in ("landlock", "seccomp"):
            with self.subTest(part):
                outcome, said, _ = self.probe(part)
                self.assertIn(f"confinement-off part={part}", said)
                for attempt in ("write-etc", "write-backing-file", "remove-backing-file", "write-run", "write-trust",
                                "write-mount-records", "mount", "ptrace", "become-root", "module"):
                    self.assertIn(outcome[attempt], REFUSED, attempt)
                self.hydrant.ok("stop")

    def test_settings_turn_parts_off_loudly(self):
        self.hydrant.root.mkdir()
        self.hydrant.start_daemons(fetchd=("--unconfined", "user", "--unconfined", "seccomp"))
        pids = self.start()
        self.assertEqual(status(pids[FETCHD])["Seccomp"], "0")
        self.assertEqual(status(pids[FETCHD])["Uid"].split()[0], "0")
        log = (self.hydrant.base / "hydrant-fetchd.log").read_text()
        self.assertIn("warn confinement-off part=user", log)
        self.assertIn("warn confinement-off part=seccomp", log)

    def test_a_user_that_is_named(self):
        self.hydrant.start_daemons(fetchd=("--user", "nobody"))
        pids = self.start()
        self.assertEqual(status(pids[FETCHD])["Uid"].split()[0], str(STRANGER))
        self.assertEqual((self.hydrant.root / "fetch").stat().st_uid, STRANGER)

    def test_state_of_a_root_fetchd_becomes_the_users(self):
        self.hydrant.start_daemons(fetchd=("--unconfined", "user"))
        source = self.push("small")
        directory = self.hydrant.mount(source)
        (directory / "hello").read_bytes()
        state = self.hydrant.root / "fetch"
        self.assertEqual({path.stat().st_uid for path in [state, *state.rglob("*")]}, {0})
        self.hydrant.ok("stop")
        wait_until(lambda: not self.hydrant.daemons(), what="they have ended")
        before = self.registry.bytes_sent()
        directory = self.hydrant.mount(source)
        self.assertEqual((directory / "hello").read_text(), "hello\n")
        owners = {path.stat().st_uid for path in [state, *state.rglob("*")]}
        self.assertEqual(owners, {user_of_fetchd()})
        self.assertLess(self.registry.bytes_sent() - before, 64 << 10, "the index is still there")

    def open_the_way(self):
        """Anybody gets as far as the sockets: what refuses is not the directory."""
        run = self.hydrant.root / "run"
        for directory in (run, run.parent, run.parent.parent):
            directory.chmod(0o711)
        return run

    def test_strangers_are_refused_on_every_socket(self):
        self.start()
        run = self.open_the_way()
        for name in ("hydrantd.sock", "fetchd.sock"):
            with self.subTest(name):
                answer = ask(run / name, {"op": "status"}, uid=STRANGER)
                self.assertTrue(answer.get("errno") == errno.EACCES or answer["error"]["code"] == "denied", answer)
                self.assertTrue(ask(run / name, {"op": "status"})["ok"])
        for name in ("keeper.sock",):
            self.assertEqual(stat.S_IMODE((run / name).stat().st_mode), 0o600)

    def test_the_user_daemon_may_fill_and_nothing_else(self):
        self.start()
        path = self.open_the_way() / "hydrantd.sock"
        self.assertTrue(ask(path, {"op": "status"}, uid=user_of_fetchd())["ok"])
        for request in ({"op": "repair", "dir": "/"}, {"op": "stop"}, {"op": "umount", "dir": "/"}, {"op": "gc"}, {"op": "engine"},
                        {"op": "mount", "dir": "/mnt", "fsid": "0" * 64}):
            with self.subTest(request["op"]):
                self.assertEqual(ask(path, request, uid=user_of_fetchd())["error"]["code"], "denied")
        self.assertEqual(len(self.hydrant.image_mounts()), 1)

    def test_secrets_are_in_no_log_no_command_line_and_no_readable_file(self):
        password = "correct-horse-battery"
        with Registry("hydra", password) as registry:
            token = registry.auth.split()[1]
            self.hydrant.log_in(registry.name("").rstrip("/"), "hydra", password)
            directory = self.hydrant.mount(self.push("small", registry=registry))
            self.assertEqual((directory / "hello").read_text(), "hello\n")
            self.hydrant.ok("umount", directory)
            self.hydrant.run("mount", registry.name("none") + ":1", self.temporary())
            secrets = (password, token)
            for log in (self.hydrant.root / "run").glob("*.log"):
                for secret in secrets:
                    self.assertNotIn(secret, log.read_text(errors="replace"), log)
            for pid in self.hydrant.daemons().values():
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() + pathlib.Path(f"/proc/{pid}/environ").read_bytes()
                for secret in secrets:
                    self.assertNotIn(secret.encode(), words)
            holders = [path for path in self.hydrant.root.rglob("*") if path.is_file() and
                       not path.is_relative_to(self.hydrant.root / "cache") and token.encode() in path.read_bytes()]
            self.assertIn(self.hydrant.root / "fetch/credentials.json", holders)
            for path in holders:
                self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path)

    @unittest.skipUnless(shutil.which("setpriv"), "needs setpriv of util-linux")
    def test_a_fetchd_that_nobody_privileged_starts_still_confines_itself(self):
        root = self.temporary() / "root"
        root.mkdir()
        os.chown(root, STRANGER, STRANGER)
        for parent in (root.parent, root.parent.parent):
            parent.chmod(0o755)
        log = self.hydrant.base / "unprivileged.log"
        with open(log, "wb") as file:
            process = subprocess.Popen(["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups",
                                        str(BIN / FETCHD), "--root", str(root)], stdout=file, stderr=file)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait_until(lambda: process.poll() is not None or b"fetchd.started" in log.read_bytes(), what="it starts")
        self.assertIsNone(process.poll(), log.read_text())
        self.assertEqual(status(process.pid)["Seccomp"], "2")
        self.assertEqual(status(process.pid)["NoNewPrivs"], "1")
