"""Images as other tools build them: each function writes an OCI layout, tag `latest`, from functions that change a tree."""

import os
import pathlib
import shutil
import subprocess

import oci
from sandbox import wait_until


def run(*command, **options):
    """What it prints."""
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


class Buildah:
    """Storage of buildah's and podman's own, without overlayfs; `image` is what commit() made last."""

    def __init__(self, work):
        self.options = ["--root", work / "storage", "--runroot", work / "run", "--storage-driver", "vfs"]
        self.image = "scratch"

    def run(self, verb, *arguments):
        return run("buildah", *self.options, verb, *arguments)

    def commit(self, change):
        """One layer more: what `change` makes of the tree so far."""
        container = self.run("from", self.image)
        change(pathlib.Path(self.run("mount", container)))
        self.run("umount", container)
        self.image = self.run("commit", "--quiet", "--rm", container)

    def push(self, directory):
        self.run("push", "--quiet", self.image, f"oci:{directory}:latest")

    def push_chunked(self, directory):
        run("podman", *self.options, "push", "--quiet", "--compression-format", "zstd:chunked", self.image,
            f"oci:{directory}:latest")


def umoci(directory, work, changes):
    """A layer a change, each of which umoci finds by looking at what has become of the unpacked tree."""
    image = f"{directory}:latest"
    run("umoci", "init", "--layout", directory)
    run("umoci", "new", "--image", image)
    for number, change in enumerate(changes):
        bundle = work / f"bundle-{number}"
        run("umoci", "unpack", "--image", image, bundle)
        change(bundle / "rootfs")
        run("umoci", "repack", "--image", image, bundle)
        shutil.rmtree(bundle)


def stargz_converter(source, directory, work):
    """The layout `source` with eStargz layers, by stargz-snapshotter's converter in a containerd of its own."""
    socket = work / "sock"
    (work / "config.toml").write_text(
        f'version = 2\nroot = "{work}/root"\nstate = "{work}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{socket}"\n')
    run("tar", "-C", source, "-cf", work / "source.tar", ".")
    with open(work / "log", "wb") as log:
        daemon = subprocess.Popen(["containerd", "--config", str(work / "config.toml")], stdout=log, stderr=log)
    try:
        answers = ["ctr", "--address", str(socket), "version"]
        wait_until(lambda: subprocess.run(answers, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0,
                   60, "containerd answers")
        run("ctr", "-a", socket, "image", "import", "--no-unpack", "--index-name", "test/source:1", work / "source.tar")
        run("ctr-remote", "-a", socket, "image", "convert", "--estargz", "--oci", "test/source:1", "test/estargz:1")
        run("ctr", "-a", socket, "image", "export", work / "estargz.tar", "test/estargz:1")
    finally:
        daemon.kill()
        daemon.wait()
    exported = work / "exported"
    exported.mkdir()
    run("tar", "-C", exported, "-xf", work / "estargz.tar")
    # What it exports is an index with an index in it.
    run("skopeo", "copy", "--quiet", "--preserve-digests", f"oci:{exported}", f"oci:{directory}:latest")


def tar_formats(directory, work, change):
    """A plain layer for each format of GNU tar and bsdtar, all of the tree that `change` makes, in a directory named so.
    Yields what tar and bsdtar unpack of them."""
    forms = [("tar", form) for form in ("v7", "ustar", "oldgnu", "gnu", "posix")]
    forms += [("bsdtar", form) for form in ("ustar", "gnutar", "pax")]
    expected = work / "expected"
    expected.mkdir()
    image = oci.Image(directory)
    for tool, form in forms:
        top = work / f"{tool}-{form}"
        (top / top.name).mkdir(parents=True)
        change(top / top.name)
        archive = work / f"{top.name}.tar"
        run(tool, f"--format={form}", "-C", top, "-cf", archive, top.name)
        run(tool, "-C", expected, "-xpf", archive)
        image.add_layer(archive.read_bytes(), oci.LAYER if form == "ustar" else oci.LAYER_GZIP)
    image.finish()
    return expected


def remove(path):
    """As `rm -r` does, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        os.unlink(path)
