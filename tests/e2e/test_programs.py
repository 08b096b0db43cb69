"""Programs run from a mount, with an overlay on top, under chroot and runc; mmap and exec included."""

import json
import mmap
import subprocess

from case import Case

WORK = """
import hashlib, json, mmap, os, subprocess, sys, tempfile
with open('/usr/bin/bash', 'rb') as f:
    mapped = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
    print('bash', hashlib.sha256(mapped).hexdigest())
print('child', subprocess.run(['/usr/bin/bash', '-c', 'echo $((6*7))'], capture_output=True, text=True).stdout.strip())
open('/work/new', 'w').write('written')
print('wrote', open('/work/new').read())
"""


class Programs(Case):
    def setUp(self):
        super().setUp()
        self.reference = self.push("one")
        self.hydrant.ok("index", self.reference)
        self.image = self.hydrant.mount(self.reference)
        top = self.temporary()
        for name in ("upper", "workdir", "merged"):
            (top / name).mkdir()
        self.merged = top / "merged"
        options = f"lowerdir={self.image},upperdir={top}/upper,workdir={top}/workdir"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(self.merged)], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.merged)], stderr=subprocess.DEVNULL)

    def check(self, done):
        import hashlib
        self.assertEqual(done.returncode, 0, done.stderr + self.hydrant.logs())
        bash = hashlib.sha256((self.unpack("one") / "usr/bin/bash").read_bytes()).hexdigest()
        self.assertEqual(done.stdout.split("\n")[:3], [f"bash {bash}", "child 42", "wrote written"])
        self.assertFalse((self.image / "work/new").exists())

    def test_chroot(self):
        self.check(subprocess.run(["chroot", str(self.merged), "python3", "-c", WORK], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, timeout=120))

    def test_runc(self):
        bundle = self.temporary()
        subprocess.run(["runc", "spec"], cwd=bundle, check=True)
        config = json.loads((bundle / "config.json").read_text())
        config["root"] = {"path": str(self.merged), "readonly": False}
        config["process"].update({"terminal": False, "args": ["python3", "-c", WORK]})
        config["process"].pop("rlimits", None)
        (bundle / "config.json").write_text(json.dumps(config))
        state = self.temporary()
        self.check(subprocess.run(["runc", "--root", str(state), "run", f"hydrant-e2e-{bundle.parent.name}"], cwd=bundle,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120))

    def test_exec_straight_from_the_mount_without_an_overlay(self):
        done = subprocess.run([self.image / "usr/bin/sha256sum", self.image / "usr/bin/bash"], stdout=subprocess.PIPE,
                              text=True, timeout=60)
        self.assertEqual(done.returncode, 0)

    def test_mmap_sees_what_read_sees(self):
        expected = (self.unpack("one") / "usr/lib/x86_64-linux-gnu/libc.so.6").read_bytes()
        with open(self.image / "usr/lib/x86_64-linux-gnu/libc.so.6", "rb") as file:
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                for page in reversed(range(0, len(expected), 4096)):  # backwards: no readahead helps
                    self.assertEqual(mapped[page : page + 4096], expected[page : page + 4096])
