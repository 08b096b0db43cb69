"""Everything an end-to-end test starts, in objects that clean up after themselves. Tests run as root in a private mount
and PID namespace (tests/e2e/run), so that nothing outlives them even when they are killed."""

import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HYDRANT_BUILD", SOURCE / "build"))
BIN = BUILD / "bin"


def wait_until(condition, seconds=10, what="condition"):
    """Polls; the only way tests wait."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.01)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def mounts():
    """(mount point, type) of this namespace."""
    lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    return [(line.split()[4], line.split(" - ")[1].split()[0]) for line in lines]


def processes_naming(text):
    """Pids of live processes whose command line contains `text`, our own left out."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(text in word for word in words):
                found[int(entry.name)] = os.path.basename(words[0])
    return found


def parent_of(pid):
    """None when it is gone."""
    with contextlib.suppress(OSError):
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return None


def kill_all(*pids, seconds=10):
    """SIGKILL to all, in this order; returns when they have let go of everything, sockets and locks too. A command line goes
    earlier than that."""
    handles = [os.pidfd_open(pid) for pid in pids]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid, handle in zip(pids, handles):
            if not select.select([handle], [], [], seconds)[0]:
                raise AssertionError(f"{pid} does not end")
    finally:
        for handle in handles:
            os.close(handle)


class Registry:
    """Debian's docker-registry on a free port of an address, storage in a directory of its own. `prefix` is a command that runs
    it elsewhere, in another network namespace. `access` is what its configuration says of who may do what, in place of `user`."""

    def __init__(self, user=None, password=None, address="127.0.0.1", prefix=(), access=""):
        self.address, self.prefix = address, prefix
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="hydrant-registry-"))
        self.auth = None
        if user:
            htpasswd = subprocess.run(["htpasswd", "-Bbn", user, password], check=True, stdout=subprocess.PIPE).stdout
            (self.directory / "htpasswd").write_bytes(htpasswd)
            access = f"auth: {{htpasswd: {{realm: e2e, path: {self.directory}/htpasswd}}}}\n"
            self.auth = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.log = open(self.directory / "log", "wb")
        for _ in range(5):  # somebody else may take the port between our look and the registry's bind
            if self.start(access):
                return
        raise AssertionError("docker-registry does not start:\n" + (self.directory / "log").read_text()[-2000:])

    def start(self, access):
        self.port = free_port()
        (self.directory / "config.yml").write_text(
            "version: 0.1\n"
            "log: {level: error, accesslog: {disabled: false}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.directory}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.address}:{self.port}', secret: e2e}}\n" + access)
        self.process = subprocess.Popen([*self.prefix, "docker-registry", "serve", str(self.directory / "config.yml")],
                                        stdout=self.log, stderr=subprocess.STDOUT,
                                        env={"OTEL_TRACES_EXPORTER": "none", "PATH": os.environ["PATH"]})
        wait_until(lambda: accepts(self.port, self.address) or self.process.poll() is not None, 30, "registry listens")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.1)
        return self.process.returncode is None

    def name(self, image, port=None):
        return f"{self.address}:{port or self.port}/{image}"

    def blob_path(self, digest):
        return self.directory / "data/docker/registry/v2/blobs/sha256" / digest[7:9] / digest[7:] / "data"

    def answers(self):
        """(request line, body bytes) of each answer so far, by the registry's own access log (combined format)."""
        self.log.flush()
        found = []
        for line in (self.directory / "log").read_text(errors="replace").splitlines():
            parts = line.split('"')
            if len(parts) > 2 and " HTTP/1." in parts[1]:
                size = parts[2].split()
                found.append((parts[1], int(size[1]) if len(size) > 1 and size[1].isdigit() else 0))
        return found

    def bytes_sent(self):
        return sum(size for _, size in self.answers())

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def accepts(port, address="127.0.0.1"):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


class Relay:
    """A TCP relay in front of a registry: counts what comes back, limits its rate, and can hold it altogether."""

    def __init__(self, upstream_port, bytes_per_second=None):
        self.upstream_port = upstream_port
        self.rate = bytes_per_second
        self.received = 0
        self.open = threading.Event()
        self.open.set()
        self.closed = False
        self.lock = threading.Lock()
        self.next_free = time.monotonic()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def hold(self):
        self.open.clear()

    def release(self):
        self.open.set()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                upstream = socket.create_connection(("127.0.0.1", self.upstream_port))
            except OSError:
                return
            threading.Thread(target=self.pump, args=(client, upstream, False), daemon=True).start()
            threading.Thread(target=self.pump, args=(upstream, client, True), daemon=True).start()

    def pump(self, source, target, counted):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if counted:
                    self.pace(len(data))
                    data = self.altered(data)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()  # the other thread closes the other end

    def altered(self, data):
        """What the client gets for what the registry sent; for those who lie."""
        return data

    def pace(self, size):
        self.open.wait()
        with self.lock:
            self.received += size
            if not self.rate:
                return
            start = max(self.next_free, time.monotonic())
            self.next_free = start + size / self.rate
        time.sleep(max(0, start - time.monotonic()))

    def close(self):
        self.listener.close()
        self.open.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Hydrant:
    """One root with its daemons. `base` is where the root directory is made, unless `root` says where it is."""

    def __init__(self, base=None, env=None, root=None):
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="hydrant-e2e-", dir=base))
        self.root = root or self.base / "root"
        self.env = {**os.environ, "DOCKER_CONFIG": str(self.base / "docker"), **(env or {})}
        self.count = 0

    def command(self, verb, *arguments):
        return [str(BIN / "hydrant"), verb, "--root", str(self.root), *map(str, arguments)]

    def run(self, verb, *arguments, timeout=120, prefix=()):
        return subprocess.run([*prefix, *self.command(verb, *arguments)], stdin=subprocess.DEVNULL, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env)

    def ok(self, verb, *arguments, **options):
        done = self.run(verb, *arguments, **options)
        if done.returncode != 0:
            raise AssertionError(f"hydrant {verb} {arguments}: {done.returncode}: {done.stderr}\n{self.logs()}")
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    def new_dir(self):
        self.count += 1
        directory = self.base / f"m{self.count}"
        directory.mkdir()
        return directory

    def mount(self, source, *options):
        directory = self.new_dir()
        self.ok("mount", *options, source, directory)
        return directory

    def forget(self):
        """Becomes a machine that has never seen an image."""
        self.ok("stop")
        shutil.rmtree(self.root)

    def log_in(self, registry, user, password):
        (self.base / "docker").mkdir(exist_ok=True)
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        (self.base / "docker/config.json").write_text(json.dumps({"auths": {registry: {"auth": token}}}))

    def start_daemons(self, *hydrantd_options, fetchd=(), prefix=()):
        """Without a keeper, and with options that people do not set in a command; run by `prefix`, a command."""
        for name, options in (("hydrantd", hydrantd_options), ("hydrant-fetchd", fetchd)):
            self.root.mkdir(exist_ok=True)
            with open(self.base / f"{name}.log", "wb") as log:
                subprocess.Popen([*prefix, str(BIN / name), "--root", str(self.root), *map(str, options)], env=self.env,
                                 stdout=log, stderr=log)
        status = lambda: json.loads(self.run("version", "--json").stdout)["hydrantd"] or {}
        wait_until(lambda: status().get("attached"), what="daemons are ready")

    def start_keeper(self):
        """As an init system would start it again."""
        subprocess.run([str(BIN / "hydrant-keeper"), "--root", str(self.root)], env=self.env, check=True)

    def daemons(self):
        """name: pid of what runs for this root."""
        found = processes_naming(str(self.root))
        # A child that was forked just now has its parent's name still.
        return {name: pid for pid, name in found.items() if name != "hydrant" and found.get(parent_of(pid)) != name}

    def image_mounts(self):
        return [point for point, kind in mounts() if point.startswith(str(self.base)) and kind == "erofs"]

    def logs(self):
        text = ""
        for path in sorted([*self.root.glob("run/*.log"), *self.base.glob("*.log")]):
            text += f"--- {path.name}\n" + path.read_text(errors="replace")[-3000:]
        return text

    def close(self):
        if self.daemons():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.run("stop", timeout=30)
        for _ in range(50):  # the keeper first, or it would restart the others
            left = processes_naming(str(self.root))
            if not left:
                break
            for pid in sorted(left, key=lambda pid: left[pid] != "hydrant-keeper"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for point, _ in reversed(mounts()):
            if point.startswith((str(self.base), f"{self.root}/")):
                subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.base, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@contextlib.contextmanager
def small_disk(megabytes, block=4096):
    """A fresh ext4 of that size and block size on a loop device; yields its directory."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="hydrant-disk-"))
    image, point = directory / "image", directory / "mnt"
    point.mkdir()
    with open(image, "wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-b", str(block), "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)])
        shutil.rmtree(directory, ignore_errors=True)
