"""What the programs share that do something bad to a hydrant of its own, round after round, each by its seed."""

import argparse
import collections
import os
import pathlib
import random
import tempfile

from origins import Origins
from sandbox import Hydrant


def run(name, rounds, setting, summary):
    """The exit status. `setting(origins, directory, options, counts)` is a context manager that yields what makes a round:
    `make(hydrant, seed, counts).run()` lists what was wrong; `make.env`, if there is one, is for the hydrant of each. `summary` tells
    the last line from (counts, options, how many rounds had something wrong)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    counts, wrong = collections.Counter(), []
    with tempfile.TemporaryDirectory(prefix=f"hydrant-{name}-") as directory:
        os.chmod(directory, 0o755)
        directory = pathlib.Path(directory)
        with Origins(directory, random.Random(options.seed), 0.25) as origins, setting(origins, directory, options, counts) as make:
            for seed in range(options.seed, options.seed + options.rounds):
                with Hydrant(env=getattr(make, "env", None)) as hydrant:
                    origins.log_in(hydrant)
                    try:
                        told = make(hydrant, seed, counts).run()
                    except AssertionError as error:
                        told = [str(error)]
                    if told:
                        wrong.append(f"seed {seed}: " + "; ".join(told) + "\n" + hydrant.logs())
    for text in wrong[:10]:
        print(text)
    for what, count in sorted(counts.items()):
        print(f"  {what:<24}{count:>8}")
    print(summary(counts, options, len(wrong)))
    return 1 if wrong else 0
