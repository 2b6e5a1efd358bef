"""Measure how fast this project is: `make bench`, or

    python benchmarks/bench.py                 everything that this machine can do, ten minutes at most on two cores
    python benchmarks/bench.py peers loop      MlpMixer beside other Mixers; train() beside the usual way
    python benchmarks/bench.py cost gpu        how cost grows; B/16 on a GPU
    python benchmarks/bench.py views           how soon the live views answer a key, in a browser
    python benchmarks/bench.py busy            training beside busy programs, against one thread there
    python benchmarks/bench.py --smoke         whether it all runs, in seconds: nothing is kept

Every number compared is measured in turn with the one it is compared with, in one process. What is found goes to
results/bench-*.json (or --results FOLDER) after every step, so that a run cut off keeps what it has.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works where the package is not installed

PARTS = ("peers", "loop", "cost", "gpu", "views", "busy")


def main(arguments=None):
    from benchmarks.timing import ROOT, save
    from mixer_utils import DataError
    from mixer_utils.devices import keep_freed_memory, pick_device

    parser = argparse.ArgumentParser(description="Measure how fast this project is.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"one or more of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--results", default=ROOT / "results", metavar="FOLDER", help="where the JSON files go")
    parser.add_argument("--smoke", action="store_true", help="two tiny rounds of each part; nothing is written")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")

    device = pick_device(options.device)
    keep_freed_memory()  # as train() does, for every model alike
    for name in options.parts or PARTS:
        print(f"{name}, on {device.type}:", flush=True)
        start = time.perf_counter()
        try:
            for found in importlib.import_module(f"benchmarks.{name}").run(device, options.smoke):
                if not options.smoke:
                    save(name, found, device, options.results)
        except DataError as error:
            print(f"  skipped: {error}", flush=True)
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
