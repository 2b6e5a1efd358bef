"""Training beside programs that keep the cores busy: how much longer it takes than one thread alone needs there."""

import os
import statistics
import subprocess
import sys

from benchmarks.timing import ROOT

ROUNDS = {0: 6, 1: 2, 3: 1}  # beside so many programs that compute without end; the more there are, the longer it takes
# How torch's threads are set up: what comes before the run, and the environment.
NO_TRIAL = "from mixer_utils import devices; devices.one_is_faster = lambda number, step: False"
WAYS = {
    "one thread": ("", {"OMP_NUM_THREADS": "1"}),
    "as torch has it": (f"import torch; {NO_TRIAL}", {"GOMP_SPINCOUNT": "300000"}),
    "train()": ("", {}),
    "train(), torch imported before": ("import torch", {}),
}
RUN = """
{first}
import dataclasses
from mixer_utils import RECIPES, load_dataset, train
data = load_dataset("{data}")
recipe = dataclasses.replace(RECIPES["{recipe}"], epochs=1)
print(train(recipe, data=data, device="cpu", progress=False)[1].train_seconds)
"""


def run(device, smoke):
    """Yield, after every count of busy programs, what was found so far: seconds, and ratios to one thread's."""
    if device.type != "cpu":
        return
    found = {"recipe": "digits" if smoke else "quick", "epochs": 1, "beside": {}}
    for count, rounds in {0: 1, 1: 1}.items() if smoke else ROUNDS.items():
        programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            seconds = {way: [] for way in WAYS}
            for _ in range(rounds):
                for way, times in seconds.items():
                    times.append(trained(way, found["recipe"]))
        finally:
            for program in programs:
                program.kill()
                program.wait()
        medians = {way: statistics.median(times) for way, times in seconds.items()}
        ratios = {way: medians[way] / medians["one thread"] for way in WAYS}
        found["beside"][str(count)] = {"seconds": seconds, "median": medians, "times_one_thread": ratios}
        print(f"  beside {count}: " + ", ".join(f"{way} {medians[way]:.1f} s" for way in WAYS), flush=True)
        if count == 0:
            found["alone_against_torch"] = medians["train()"] / medians["as torch has it"]
        yield found


def trained(way, recipe):
    """The seconds that an epoch takes in a process of its own."""
    first, environment = WAYS[way]
    kept = {name: value for name, value in os.environ.items() if "OMP" not in name}
    program = RUN.format(first=first, recipe=recipe, data="digits" if recipe == "digits" else "mnist")
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=kept | environment, capture_output=True,
                         text=True)  # fmt: skip
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    return float(run.stdout.split()[-1])
