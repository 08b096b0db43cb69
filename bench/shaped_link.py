"""A link of a given rate and round-trip time between the network namespace that we are in (the client's) and one of its own
(the server's). Linux's netem is not needed: packets are delayed by build/bin/delay_link, the rate is a token bucket's."""

import contextlib
import os
import subprocess

from sandbox import BIN

SERVER, CLIENT = "10.77.0.1", "10.77.0.2"


class Link:
    """`rate` in Mbit/s and `rtt` in ms; without them a plain pair of devices. `prefix` runs a command on the server's side."""

    def __init__(self, rate=None, rtt=None):
        self.name = f"{rate} Mbit/s + {rtt} ms" if rate else "unshaped"
        self.helpers = []
        holder = self.keep("unshare", "--net", "sh", "-c", "echo; exec sleep infinity")
        holder.stdout.readline()  # it is in its namespace
        self.prefix = ("nsenter", f"--net=/proc/{holder.pid}/ns/net", "--")
        if rate:
            relay = self.keep(BIN / "delay_link", holder.pid, os.getpid(), rtt)
            if relay.stdout.readline() != b"ready\n":
                raise AssertionError("delay_link did not start")
        else:
            self.run("ip", "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", holder.pid)
        for side, address in ((self.prefix, SERVER), ((), CLIENT)):
            self.run(*side, "ip", "link", "set", "lo", "up")
            self.run(*side, "ip", "address", "add", f"{address}/24", "dev", "link0")
            self.run(*side, "ip", "link", "set", "link0", "up")
            if rate:
                burst = max(64 << 10, rate * 1000000 // 8 // 250)
                self.run(*side, "tc", "qdisc", "add", "dev", "link0", "root", "tbf", "rate", f"{rate}mbit", "burst", burst,
                         "limit", burst + rate * 1000000 // 8 // 20)

    def keep(self, *command):
        helper = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.helpers.append(helper)
        return helper

    @staticmethod
    def run(*command):
        subprocess.run(list(map(str, command)), check=True)

    def push(self, image, reference):
        """An OCI layout, to a registry on the server's side."""
        self.run(*self.prefix, "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", f"oci:{image}",
                 f"docker://{reference}")

    @staticmethod
    def received():
        """Bytes that the client has received over it, headers included."""
        with open("/proc/self/net/dev") as file:
            return next(int(line.split()[1]) for line in file if line.strip().startswith("link0:"))

    def close(self):
        for helper in reversed(self.helpers):
            helper.kill()
            helper.wait()
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run("sh", "-c", "ip link delete link0 2> /dev/null || true")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
