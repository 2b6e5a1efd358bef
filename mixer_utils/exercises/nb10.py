"""Exercises of notebook 10: what limits an operation, how much of a machine is used, gradients of unequal shares."""

import torch

from mixer_utils.exercises.exercise import Exercise


def least_seconds(flop, moved, peak, bandwidth):
    return max(flop / peak, moved / bandwidth)


def share_of_peak(multiply_adds, images_per_second, peak):
    return 3 * 2 * multiply_adds * images_per_second / peak


def gradient_of_all(gradients, counts):
    return (gradients * counts[:, None]).sum(0) / counts.sum()


def operators():
    """One that waits for memory, and one that waits for the processor: (flop, moved, peak, bandwidth)."""
    return [(4e9, 8e9, 1e9, 1e9), (9e9, 2e9, 2e9, 1e9)]


def shares():
    gradients = torch.tensor([[1.0, -2.0, 0.5], [3.0, 4.0, -1.0], [0.0, 6.0, 2.0]])
    return [(gradients, torch.tensor([6.0, 3.0, 1.0])), (gradients[:2], torch.tensor([1.0, 4.0]))]


EXERCISES = {
    "10.1": Exercise(
        reference=least_seconds,
        inputs=operators,
        mistakes={
            "you added the two times: calculation and movement go on together, the longer one counts": (
                lambda flop, moved, peak, bandwidth: flop / peak + moved / bandwidth
            ),
            "that is the time of the calculation: with few operations a byte, memory takes longer than that": (
                lambda flop, moved, peak, bandwidth: flop / peak
            ),
            "that is the time of the movement alone: an operator with many operations a byte waits for the processor": (
                lambda flop, moved, peak, bandwidth: moved / bandwidth
            ),
            "that is the operations a second under the roof: divide flop by it to get seconds": (
                lambda flop, moved, peak, bandwidth: min(peak, bandwidth * flop / moved)
            ),
            "that is the arithmetic intensity, operations a byte: seconds need the peak and the bandwidth, too": (
                lambda flop, moved, peak, bandwidth: flop / moved
            ),
        },
    ),
    "10.2": Exercise(
        reference=share_of_peak,
        inputs=lambda: [(2e6, 6000.0, 2e11), (1.25e10, 30.0, 9e12)],
        mistakes={
            "the factor 2 is missing: a multiply-add is two operations, and the peak counts operations": (
                lambda multiply_adds, images_per_second, peak: 3 * multiply_adds * images_per_second / peak
            ),
            "that is the forward pass alone: with the backward pass it is three times as much": (
                lambda multiply_adds, images_per_second, peak: 2 * multiply_adds * images_per_second / peak
            ),
            "two factors are missing: 2 for a multiply-add, 3 for forward and backward together": (
                lambda multiply_adds, images_per_second, peak: multiply_adds * images_per_second / peak
            ),
            "the backward pass is counted without the forward one: together they are three times the forward pass": (
                lambda multiply_adds, images_per_second, peak: 2 * 2 * multiply_adds * images_per_second / peak
            ),
            "these are operations a second: divide them by the peak": (
                lambda multiply_adds, images_per_second, peak: 3 * 2 * multiply_adds * images_per_second
            ),
            "the fraction is upside down: what is used stands above, the peak below": (
                lambda multiply_adds, images_per_second, peak: peak / (3 * 2 * multiply_adds * images_per_second)
            ),
            "that is in per cent: return a number from 0 to 1": (
                lambda multiply_adds, images_per_second, peak: 600 * multiply_adds * images_per_second / peak
            ),
        },
        tolerance=1e-6,
    ),
    "10.3": Exercise(
        reference=gradient_of_all,
        inputs=shares,
        mistakes={
            "you took the plain mean: a process with more images must count more": (
                lambda gradients, counts: gradients.mean(0)
            ),
            "you added the gradients: that grows with the number of processes, take a weighted mean": (
                lambda gradients, counts: gradients.sum(0)
            ),
            "the weighted sum is not divided yet: divide by the number of all images": (
                lambda gradients, counts: (gradients * counts[:, None]).sum(0)
            ),
            "you divided by the number of processes: divide by the number of all images": (
                lambda gradients, counts: (gradients * counts[:, None]).mean(0)
            ),
            "you divided by the counts: each row is a mean already, multiply it by its number of images": (
                lambda gradients, counts: (gradients / counts[:, None]).sum(0)
            ),
            "the mean went along the wrong dimension: there must be one number for every weight": (
                lambda gradients, counts: gradients.mean(1)
            ),
            "these are the weighted gradients of every process: add them up over the processes": (
                lambda gradients, counts: gradients * counts[:, None] / counts.sum()
            ),
        },
    ),
}

PREDICTIONS = {}
