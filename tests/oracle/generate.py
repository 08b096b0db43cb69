"""Random scripts: a seed gives the same ones everywhere. The generator keeps a rough idea of what a script has done, so
that most steps mean something; the rest are the mistakes a daemon can make."""
import random

PAGE = 4096
BLOCKS = 16
IMAGES = ["a", "b", "c", "p", "q"]
DEVICE_IMAGES = "pq"


class Script:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.steps = []
        self.open, self.bound, self.mode = False, False, "ondemand"
        self.opens, self.reads, self.handles, self.closes = 0, 0, 0, 0  # messages that a script expects to have read
        self.waiting = 0  # messages that may be there to read
        self.mounts, self.readers, self.count = {}, [], 0
        self.closed = False  # some handle
        self.asked = {}  # blocks of each file that a read may still wait for: the page cache keeps others from them

    def say(self, *words):
        self.closed |= words[0] == "closefd"
        self.steps.append(" ".join(str(word) for word in words))

    def name(self, prefix):
        self.count += 1
        return f"{prefix}{self.count}"

    def chance(self, share):
        return self.r.random() < share

    # --- refs
    def id(self):
        kinds = [kind for kind, known in (("o", self.opens), ("r", self.reads), ("c", self.closes)) if known]
        if not kinds or self.chance(0.06):
            return str(self.r.choice([0, 1, 2, 3, 7, 4294967295]))
        return self.r.choice(kinds) + str(self.r.choice([0, 0, 0, 1, 2]))

    def handle(self):
        return "h" + str(self.r.choice([0, 0, 0, 0, 1, 1, 2]))

    # --- steps
    def start(self):
        self.say("open")
        self.say("dir $D")
        if self.chance(0.03):
            self.say(self.r.choice(["bind junk", "bind ondemandx", "tag t", "tag", "frun 20%", "bcull 4%", "fstop 3%",
                                    "restore", "copen 0 ,1", "secctx x", "debug 0", "inuse x", "cull x", "brun 0%"]))
        self.mode = "" if self.chance(0.04) else "ondemand"
        self.say("bind" if not self.mode else "bind ondemand")
        self.open = self.bound = True

    def mount(self):
        if len(self.mounts) >= 3:
            return self.read()
        name, image = self.name("m"), self.r.choice(IMAGES)
        options = [f"fsid={image}"]
        if self.chance(0.3):
            options.append("domain=" + self.r.choice("de"))
        if image in DEVICE_IMAGES and self.chance(0.3):
            options.append("device=x")
        self.say("mount", name, *options)
        self.mounts[name] = image
        self.waiting += 1
        if self.chance(0.8):
            self.serve_mount(name)

    def serve_mount(self, name):
        self.read()
        self.opens += 1
        self.handles += 1
        self.say("copen", "o0", f",{(BLOCKS + 1) * PAGE}")
        self.read()
        self.reads += 1
        self.say("pwrite", "h0", 0, PAGE)
        self.say("cr", "h0", "r0")
        if self.mounts[name] in DEVICE_IMAGES and self.chance(0.9):
            self.read()
            self.opens += 1
            self.handles += 1
            self.say("copen", "o0", f",{BLOCKS * PAGE}")

    def read(self):
        self.say("read") if not self.chance(0.05) else self.say("read", self.r.choice([0, 16, 31, 32, 36, 40, 41]))
        self.waiting = max(0, self.waiting - 1)

    def target(self):
        mount = self.r.choice(sorted(self.mounts))
        device = ".1" if self.mounts[mount] in DEVICE_IMAGES and self.chance(0.6) else ""
        first = self.r.randrange(BLOCKS)
        blocks = min(self.r.choice([1, 1, 2, 2, 3, 4, 8, 16]), BLOCKS - first)
        busy = self.asked.setdefault(mount + device, set())
        while first in busy and first:
            first -= 1
        blocks = next((n for n in range(blocks) if first + n in busy), blocks)
        if not blocks:
            return None, 0, 0
        return mount + device, first, blocks

    def consume(self):
        if not self.mounts:
            return self.mount()
        target, first, blocks = self.target()
        if not target:
            return self.read()
        name = self.name("c")
        if self.chance(0.15):
            self.say("page", name, target, first * PAGE)
            blocks = 1
        else:
            self.say("C", name, target, first * PAGE, blocks * PAGE)
        self.readers.append(name)
        self.waiting += 1
        if self.chance(0.7):
            self.read()
            self.reads += 1
            base = 0 if "." in target else PAGE
            # With other reads about, the message may have been theirs; with a handle closed, there may have been none.
            if self.answer(base + first * PAGE, blocks) and not any(self.asked.values()) and not self.closed:
                return
        self.asked[target].update(range(first, first + blocks))

    def answer(self, offset, blocks):
        kind = self.r.random()
        if kind < 0.55:
            self.say("pwrite", "hr", offset, blocks * PAGE)
        elif kind < 0.7:
            self.say("pwrite", "hr", offset, max(1, blocks // 2) * PAGE)
        elif kind < 0.78 and blocks > 1:
            self.say("pwrite", "hr", offset + PAGE, (blocks - 1) * PAGE)
        elif kind < 0.85:
            self.say("pwrite", "hr", 0, (BLOCKS + 1) * PAGE)
        if self.chance(0.85):
            self.say("cr", "hr", "r0")
            return kind < 0.55
        return False

    def copen(self):
        size = self.r.choice([f",{BLOCKS * PAGE}", f",{(BLOCKS + 1) * PAGE}", f",{(BLOCKS + 1) * PAGE}", ",0", ",4096",
                              ",100", ",-1", ",-2", ",-5", ",-4095", ",-4096", ",abc", ",", "", ",0x11000", ",+4096",
                              ",4096 ", " ,4096", ",99999999999999999999"])
        self.say("copen", self.id(), size)

    def write(self):
        offset = self.r.randrange(BLOCKS + 2) * PAGE
        self.say("pwrite", self.handle(), offset, self.r.choice([100, PAGE, PAGE, 2 * PAGE, 3 * PAGE, 8192 + 7]))

    def umount(self):
        if not self.mounts:
            return self.mount()
        mount = self.r.choice(sorted(self.mounts))
        self.say("umount", self.name("u"), mount)
        del self.mounts[mount]
        self.waiting += 1
        if self.chance(0.7):
            self.read()
            self.closes += 1
        if self.chance(0.5):
            self.say("closefd", self.handle())

    def command(self):
        self.say(self.r.choice(["restore", "restore", "bind", "bind ondemand", "dir x", "tag t", "debug 0", "debug x",
                                "frun 50%", "frun 2%", "bstop 1%", "bogus", "write \\n", "write ", "inuse nothing/x",
                                "inuse ", "cull ..", "copen", "copenx", "write copen 0", "write copen ,1"]))

    def kill(self):
        if not self.readers:
            return self.consume()
        self.say("kill", self.r.choice(self.readers))

    def seek(self):
        self.say("seek", self.handle(), self.r.randrange(4) * PAGE, self.r.choice(["data", "hole", "set", "end"]))

    def oddity(self):
        self.say(self.r.choice(["fdread h0", "ioctl h0 0x40049802 1", "ioctl h0 0x5401 0", "open2", "readbad",
                                "dup h0", "nofds on", "nofds off", "ls", "nop"]))

    def close(self):
        self.say("close")
        self.open = False
        if self.chance(0.6):
            for _ in range(self.handles):
                self.say("closefd", f"h{_}")
            self.say("open")
            self.say("dir $D")
            self.say("bind ondemand")
            self.open = True
            self.opens = self.reads = self.closes = 0

    def generate(self):
        self.start()
        verbs = [(self.mount, 8), (self.consume, 18), (self.read, 16), (self.copen, 5), (self.write, 6),
                 (lambda: self.say("cr", self.r.choice(["hr", "hr", self.handle()]), self.id()), 5),
                 (lambda: self.say("closefd", self.handle()), 5), (self.umount, 5), (self.command, 3), (self.kill, 4),
                 (self.seek, 1), (self.oddity, 2), (lambda: self.say("restore"), 3)]
        for _ in range(self.r.randrange(2, 11)):
            self.r.choices([verb for verb, _ in verbs], [weight for _, weight in verbs])[0]()
        if self.chance(0.3):
            self.close()
        for _ in range(self.r.randrange(3)):
            self.read()
        self.say("ls")
        return self.steps


def scripts(seed, count):
    return {f"random-{seed}-{i}": [(step, None) for step in Script(f"{seed}/{i}").generate()] for i in range(count)}


if __name__ == "__main__":
    import sys
    import answers
    print(answers.render(scripts(int(sys.argv[1]), int(sys.argv[2]))))
