#!/usr/bin/env python3
"""oracle.py run: the scripts on the guest kernel and on our engine, answer by answer; differences are shrunk.
oracle.py record: the same, and the kernel's answers become the recorded ones.
oracle.py replay: the engine against the recorded answers, without a guest."""
import argparse
import concurrent.futures
import lzma
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import answers
import generate
import guest

HERE = pathlib.Path(__file__).resolve().parent
FIXED = sorted((HERE / "scripts").glob("*.txt"))
RANDOM = HERE / "golden" / "random.txt.xz"
RECORDED = 1000  # of the random scripts: `make test` replays them
SHARDS = 2
SHRINK_AT_MOST = 3  # scripts


def fixed_scripts():
    found = {}
    for path in FIXED:
        for name, steps in answers.parse(path.read_text()).items():
            if name in found:
                sys.exit(f"oracle: two scripts are called {name}")
            found[name] = steps
    return found


def recorded_random():
    return answers.parse(lzma.decompress(RANDOM.read_bytes()).decode("latin-1")) if RANDOM.exists() else {}


def in_shards(run, scripts):
    """Runs shares of the scripts at the same time and joins what they gave."""
    shares = [dict(list(scripts.items())[i::SHARDS]) for i in range(SHARDS)]
    found = {}
    with concurrent.futures.ThreadPoolExecutor(SHARDS) as pool:
        for share in pool.map(run, [share for share in shares if share]):
            found.update(share)
    return found


def disk_for_the_engine():
    """A tmpfs where one will do: the engine syncs its file system at every end of a cache."""
    try:
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as probe:
            os.setxattr(probe.name, "user.probe", b"1")
        return "/dev/shm"
    except OSError:
        return None


class Sides:
    def __init__(self, args, work):
        self.args, self.work, self.hung = args, work, []
        self.guest = guest.Guest(guest.build_kernel(), args.agent, work) if args.agent else None

    def engine(self, scripts):
        return in_shards(self.run_engine, scripts)

    def run_engine(self, scripts):
        root = tempfile.mkdtemp(dir=disk_for_the_engine() or self.work, prefix="hydrant-oracle-")
        try:
            run = subprocess.run([self.args.engine, root], input=answers.render(scripts).encode("latin-1"),
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
            if run.returncode != 0:
                print("oracle: the engine's program failed:\n" + run.stderr.decode()[-2000:], file=sys.stderr)
            return answers.parse(run.stdout.decode("latin-1"))
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def kernel(self, scripts):
        return in_shards(self.run_kernel, scripts)

    def run_kernel(self, scripts):
        """A script that hangs the guest ends its boot; the rest goes into the next one."""
        rest, found = dict(scripts), {}
        while rest:
            text, stuck = self.guest.boot(answers.render(rest))
            got = answers.parse(text)
            if not got:
                sys.exit("oracle: the guest said nothing:\n" + text[-2000:])
            for name, steps in got.items():
                found[name] = steps
                rest.pop(name, None)
            if stuck:
                self.hung.append(list(got)[-1])
            elif rest:
                sys.exit("oracle: the guest left scripts out: " + " ".join(rest))
        return found


def differences(kernel, engine, accepted):
    found = {}
    for name, steps in kernel.items():
        difference = answers.first_difference(steps, engine.get(name, []), accepted)
        if difference:
            found[name] = difference
    return found


def shrink(sides, steps):
    """The fewest steps that still differ: parts are left out, all variants of a size in one boot."""
    def still_differ(variants):
        scripts = {str(i): [(step, None) for step in variant] for i, variant in enumerate(variants)}
        found = differences(sides.kernel(scripts), sides.engine(scripts), answers.Accepted())
        return [variants[int(name)] for name in sorted(found, key=int)]

    size = max(1, len(steps) // 2)
    while True:
        variants = [steps[:at] + steps[at + size:] for at in range(0, len(steps), size)]
        smaller = still_differ([variant for variant in variants if variant])
        if smaller:
            steps = smaller[0]
            size = min(size, max(1, len(steps) // 2))
        elif size == 1:
            return steps
        else:
            size //= 2


def explain(name, steps, kernel, difference):
    index, wanted, got = difference
    lines = [f"DIFFERS: {name}"]
    lines += [f"    {step} => {answer}" for step, answer in kernel[max(0, index - 60):index]]
    lines += [f"    {steps[index]}", f"        kernel: {wanted}", f"        engine: {got}"]
    return "\n".join(lines)


def record(kernel, random):
    for path in FIXED:
        lines, answered, step = [], None, 0
        for line in path.read_text().splitlines():
            if line.startswith("= "):
                answered, step = kernel.get(line[2:]), 0
            elif line and line[0] != "#":
                text = line.partition(" => ")[0]
                answer = answered[step][1] if answered and step < len(answered) else None
                line, step = text if answer is None else f"{text} => {answer}", step + 1
            lines.append(line)
        path.write_text("\n".join(lines) + "\n")
    RANDOM.parent.mkdir(exist_ok=True)
    text = answers.render({name: kernel[name] for name in list(random)[:RECORDED] if name in kernel})
    RANDOM.write_bytes(lzma.compress(text.encode("latin-1"), preset=9 | lzma.PRESET_EXTREME))


def report(scripts, accepted, found, seconds):
    steps = sum(len(steps) for steps in scripts.values())
    print(f"oracle: {len(scripts)} scripts, {steps} steps, {sum(accepted.used.values())} accepted differences"
          f" ({', '.join(f'{name} {count}' for name, count in sorted(accepted.used.items())) or 'none'}),"
          f" {len(found)} others, {seconds:.0f} s")


def replay(sides):
    started = time.monotonic()
    kernel = {**fixed_scripts(), **recorded_random()}
    accepted = answers.Accepted()
    engine = sides.engine(kernel)
    found = differences(kernel, engine, accepted)
    for name, difference in list(found.items())[:10]:
        print(explain(name, [step for step, _ in kernel[name]], kernel[name], difference))
    report(kernel, accepted, found, time.monotonic() - started)
    return 1 if found else 0


def run(sides, args):
    started = time.monotonic()
    fixed, random = fixed_scripts(), generate.scripts(args.seed, args.random)
    scripts = {**fixed, **random}
    kernel, engine = sides.kernel(scripts), sides.engine(scripts)
    accepted = answers.Accepted()
    found = differences(kernel, engine, accepted)
    # What a second look does not show again is the guest's doing.
    unsteady = []
    if found:
        again = {name: scripts[name] for name in found}
        kernel_again = sides.kernel(again)
        unsteady = [name for name in again if kernel_again.get(name) != kernel[name]]
        kernel.update(kernel_again)
        found = differences(kernel_again, sides.engine(again), answers.Accepted())
    report(scripts, accepted, found, time.monotonic() - started)
    if sides.hung:
        print("oracle: hung the kernel: " + ", ".join(sides.hung))
    if unsteady:
        print("oracle: answered differently by the kernel itself: " + ", ".join(unsteady))
    for name, difference in found.items():
        print(explain(name, [step for step, _ in scripts[name]], kernel[name], difference), flush=True)
    if args.command == "record":
        record(kernel, random)
    elif not found:
        old = {**fixed, **recorded_random()}
        stale = [name for name, steps in kernel.items() if name not in unsteady and old.get(name) not in (None, steps)]
        if stale:
            print("oracle: recorded answers are old (`oracle.py record`): " + ", ".join(stale[:10]))
    for name in [name for name in found if name in random and args.shrink][:SHRINK_AT_MOST]:
        steps = shrink(sides, [step for step, _ in scripts[name]])
        small = {name: [(step, None) for step in steps]}
        kernel = sides.kernel(small)
        still = differences(kernel, sides.engine(small), answers.Accepted())
        if name in still:
            print("shrunk:\n" + explain(name, steps, kernel[name], still[name]), flush=True)
    return 1 if found else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "record", "replay"])
    parser.add_argument("--engine", required=True, help="the oracle_engine program")
    parser.add_argument("--agent", help="the oracle_agent program, for the guest")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", type=int, default=3000, help="scripts from the generator")
    parser.add_argument("--no-shrink", dest="shrink", action="store_false")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        sides = Sides(args, work)
        return replay(sides) if args.command == "replay" else run(sides, args)


if __name__ == "__main__":
    sys.exit(main())
