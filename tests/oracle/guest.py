"""The guest: an initramfs whose init does the work, disks, and a serial line for what is to be told."""
import os
import pathlib
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
# A hung script ends a boot; the agent gives a script 120 seconds. Both are for a machine that has others to serve.
BOOT_SECONDS = 1800


def build_kernel():
    return subprocess.run([HERE / "build_kernel.sh"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def pack(root, initramfs):
    names = [str(path.relative_to(root)) for path in sorted(root.rglob("*"))]
    with open(initramfs, "wb") as out:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input="\n".join(names).encode(), stdout=out,
                       check=True)


def boot(kernel, initramfs, disks, memory=512, processors=1):
    """Until init ends, or BOOT_SECONDS. Returns what came over the serial line."""
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", str(memory), "-smp", str(processors), "-display",
               "none", "-no-reboot", "-nodefaults", "-serial", "stdio", "-kernel", kernel, "-initrd", initramfs]
    for disk in disks:
        command += ["-drive", f"file={disk},if=virtio,format=raw,cache=unsafe"]
    # Expedited: who waits for a grace period sleeps, and a guest that sleeps looks settled.
    # no_timer_check: on a busy machine a timer may seem not to tick.
    command += ["-append", "console=ttyS0 loglevel=1 panic=-1 no_timer_check rcupdate.rcu_expedited=1 rdinit=/init"]
    with tempfile.TemporaryFile() as console:
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, timeout=BOOT_SECONDS,
                           check=False)
        except subprocess.TimeoutExpired:
            pass
        console.seek(0)
        said = console.read().decode("latin-1").replace("\r", "")
    if os.environ.get("ORACLE_CONSOLE"):
        pathlib.Path(os.environ["ORACLE_CONSOLE"]).write_text(said)
    return said


class Guest:
    """With the agent of the scripts as its init."""

    def __init__(self, kernel, agent, work):
        self.kernel, self.work = kernel, pathlib.Path(work)
        root = self.work / "root"
        root.mkdir()
        (root / "init").write_bytes(pathlib.Path(agent).read_bytes())
        (root / "init").chmod(0o755)
        # No journal: nothing on this disk happens later than it was asked for.
        subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-N", "16000", "-O",
                        "^has_journal,^resize_inode", "-E", "lazy_itable_init=0", root / "disk.img", "64M"], check=True)
        self.initramfs = self.work / "initramfs"
        shutil.copytree(pathlib.Path(kernel).parent / "modules", root / "modules")
        pack(root, self.initramfs)

    def boot(self, text):
        """Runs scripts until the end or a hang. Returns (text of the answers, whether it hung)."""
        with tempfile.NamedTemporaryFile(dir=self.work) as disk:
            disk.write(text.encode("latin-1"))
            disk.truncate((len(text) // 512 + 2) * 512)
            disk.flush()
            answers = boot(self.kernel, self.initramfs, [disk.name])
        start, end = answers.find("= "), answers.find("\n! ")
        return answers[max(start, 0):end], answers[end:end + 6] != "\n! end"
