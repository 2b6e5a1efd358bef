"""How far a Mixer gets without token mixing when it is trained for longer than notebook 03 has time for:
python benchmarks/bag.py, three minutes on two cores. It trains as that notebook's section 9 does, in bfloat16 where
that is faster.

Accuracy on 5,000 validation images; the test images are not read.
"""

import statistics
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed

from benchmarks.provenance import write_result
from benchmarks.variants import Nothing, accuracy
from mixer_utils import create_mixer, load_dataset
from mixer_utils.devices import gains_from_bf16
from mixer_utils.training import hold_out

STEPS, RATE, SEEDS = (100, 400), 0.008, (0, 1, 2)
CPU = torch.device("cpu")
FASTER = gains_from_bf16(CPU)


def bag_of_patches():
    mixer = create_mixer("mnist/7")
    for block in mixer.blocks:
        block.token_mixing = Nothing()
    return mixer


def whole_mixer():
    return create_mixer("mnist/7")


def trained_from(build, seed, steps, images, labels):
    """A Mixer after ``steps`` batches of 128; images (N, 1, 28, 28) normalised, labels (N,)."""
    torch.manual_seed(seed)
    mixer = build()
    optimizer = torch.optim.AdamW(mixer.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        batch = torch.randint(len(labels), (128,))
        with torch.autocast("cpu", torch.bfloat16, enabled=FASTER):
            logits = mixer(images[batch])
        loss = F.cross_entropy(logits.float(), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(mixer.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return mixer.eval()


def main():
    data = load_dataset("mnist")
    training, validation = ((data.normalize(part.images), part.labels) for part in hold_out(data.train, 5000))
    found = {"bag of patches": {}, "whole Mixer": {}}
    for steps in STEPS:
        for name, build in [("bag of patches", bag_of_patches), ("whole Mixer", whole_mixer)]:
            each = [accuracy(trained_from(build, seed, steps, *training), *validation) for seed in SEEDS]
            found[name][steps] = {
                "validation_accuracy": each,
                "mean": statistics.mean(each),
                "std": statistics.stdev(each),
            }
            print(f"{name}, {steps} steps: {statistics.mean(each):.2%} ± {statistics.stdev(each):.2%}", flush=True)
            result = {"seeds": SEEDS, "learning_rate": RATE, "batch_size": 128, "found": found}
            write_result("results/bag.json", result, "python benchmarks/bag.py", CPU)


if __name__ == "__main__":
    main()
