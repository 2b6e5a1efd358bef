"""B/16 on a GPU: how much of what the card can do a training step uses, beside timm's."""

import dataclasses
import statistics

import torch
from torch.nn import functional as F

from benchmarks import peers
from benchmarks.cost import multiply_adds
from benchmarks.timing import alternate, autocast, medians, ratio, timed

B_16 = peers.Shape("B/16", 16, 768, 384, 3072, 12, batch_size=512, image_size=224, in_channels=3, num_classes=1000)
BATCHES = (512,)


def run(device, smoke=False):
    """Time the card's largest matrix product, then B/16's training step at each batch size; yields after each.

    A step is forward and backward in bfloat16 autocast and a fused AdamW step. Its FLOPs are the formula's, times two
    for a multiply-add, times three for forward and backward; ``share_of_peak`` is FLOPs a second by the measured peak.
    What goes wrong in one variant is kept as its ``error``. A batch that does not fit is halved until it does.
    """
    if device.type != "cuda" and not smoke:
        print("  skipped: this machine has no CUDA GPU", flush=True)
        return
    shape, batches = (peers.TINY, (4,)) if smoke else (B_16, BATCHES)
    modes = ("eager",) if device.type != "cuda" else ("eager", "compiled")
    peak = matmul_peak(device, side=128 if smoke else 8192)
    print(f"  largest matrix product: {peak / 1e12:.1f} TFLOP/s", flush=True)
    found = {"shape": dataclasses.asdict(shape), "peak_flops": peak, "batches": []}
    yield found
    for batch_size in batches:
        while batch_size and batch_size not in [done["batch_size"] for done in found["batches"]]:
            measured = at_batch(dataclasses.replace(shape, batch_size=batch_size), modes, peak, device, smoke)
            found["batches"].append(measured)
            yield found
            if not any("out of memory" in variant.get("error", "") for variant in measured["variants"].values()):
                break
            batch_size //= 2


def matmul_peak(device, side):
    """FLOPs a second of a bfloat16 product of two square matrices: the median of 20."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = alternate({"matmul": lambda: a @ b}, device, least=20, warmup=5)
    return 2 * side**3 / medians(times)["matmul"]


def at_batch(shape, modes, peak, device, smoke):
    """Every variant that works at this batch size, in turn."""
    variants, steps = {}, {}
    torch.compiler.reset()
    for name in ("ours", "timm"):
        for mode in modes:
            title = f"{name}, {mode}"
            try:
                step = training_step(name, shape, mode, device)
                variants[title] = warmed_up(step, device)
                steps[title] = step
            except Exception as error:  # whatever one variant meets, the others are still worth measuring
                variants[title] = {"error": said(error)}
                print(f"  B {shape.batch_size}, {title}: {said(error)}", flush=True)
            empty_cache(device)
    try:
        times = alternate(steps, device, least=2 if smoke else 20, warmup=2) if steps else {}
    except Exception as error:
        times = {}
        for title in steps:
            variants[title]["error"] = said(error)
            print(f"  B {shape.batch_size}, {title}: {said(error)}", flush=True)
    flops = 3 * 2 * multiply_adds(shape) * shape.batch_size
    for title, values in times.items():
        seconds = statistics.median(values)
        variants[title] |= {
            "seconds": seconds, "images_per_second": shape.batch_size / seconds,
            "flops": flops / seconds, "share_of_peak": flops / seconds / peak,
        }  # fmt: skip
        print(f"  B {shape.batch_size}, {title}: {seconds * 1000:.1f} ms, {shape.batch_size / seconds:,.0f} images/s, "
              f"{flops / seconds / peak:.1%} of the peak", flush=True)  # fmt: skip
    ratios = {
        mode: ratio(times[f"ours, {mode}"], times[f"timm, {mode}"])
        for mode in modes if f"ours, {mode}" in times and f"timm, {mode}" in times
    }  # fmt: skip
    return {"batch_size": shape.batch_size, "variants": variants, "timm_by_ours": ratios}


def training_step(name, shape, mode, device):
    """A function that takes one step of the model called ``name``, as it is or compiled by torch.compile."""
    model = peers.build(name, shape, device)
    forward = torch.compile(model, dynamic=False) if mode == "compiled" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    images, labels = shape.batch(device)

    def step():
        with autocast("bfloat16", device):
            logits = forward(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def warmed_up(step, device):
    """Take three steps: how long the first took (compiling, mostly), and how much memory the last one needed."""
    found = {"first_seconds": timed(step, device)}
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    step()
    if device.type == "cuda":
        found["step_bytes"] = torch.cuda.max_memory_allocated() - before
    return found


def said(error):
    """The kind of an error and its first line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


def empty_cache(device):
    if device.type == "cuda":
        torch.cuda.empty_cache()
