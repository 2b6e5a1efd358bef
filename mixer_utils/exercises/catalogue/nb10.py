"""Exercises of notebook 10: what limits an operation, how much of a machine is used, unequal shares, honest timing."""

import copy
import random
import statistics

import numpy as np
import torch

from mixer_utils.exercises.exercise import Exercise


def least_seconds(flop, moved, peak, bandwidth):
    return max(flop / peak, moved / bandwidth)


def share_of_peak(multiply_adds, images_per_second, peak):
    return 3 * 2 * multiply_adds * images_per_second / peak


def gradient_of_all(gradients, counts):
    return np.average(gradients.numpy(), axis=0, weights=counts.numpy())


def operators():
    """One that waits for memory, and one that waits for the processor: (flop, moved, peak, bandwidth)."""
    return [(4e9, 8e9, 1e9, 1e9), (9e9, 2e9, 2e9, 1e9)]


def shares():
    gradients = torch.tensor([[1.0, -2.0, 0.5, 7.0], [3.0, 4.0, -1.0, 2.0], [0.0, 6.0, 2.0, -5.0]])
    return [(gradients, torch.tensor([6.0, 3.0, 1.0])), (gradients[:2, :3], torch.tensor([1.0, 4.0]))]


class Machine:
    """A computer whose speed drifts, mostly down, from call to call, and which is interrupted now and then."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.slowness = 1.0

    def disturbance(self):
        """By how much the next call is slowed down."""
        self.slowness *= self.random.uniform(0.98, 1.04)
        return self.slowness * (5 if self.random.random() < 0.15 else 1)


class Clock:
    """``clock()`` runs a version once, on a machine that others use too, and returns its seconds; the first is slow."""

    def __init__(self, machine, seconds):
        self.machine = machine
        self.seconds = seconds
        self.warm = False

    def __call__(self):
        warming_up = 0 if self.warm else 0.03
        self.warm = True
        return (self.seconds + warming_up) * self.machine.disturbance()


def clocks():
    """(time_a, time_b, rounds): two versions on one machine. The number of rounds is odd: no two medians."""
    cases = []
    for seed, a, b, rounds in [(4, 0.012, 0.010, 9), (59, 0.004, 0.007, 15), (1, 0.005, 0.005, 5)]:
        machine = Machine(seed)
        cases.append((Clock(machine, a), Clock(machine, b), rounds))
    return cases


def in_turns(time_a, time_b, rounds, uncounted=1):
    """The seconds of a, and of b, round by round. The clocks that are given stay as they are."""
    time_a, time_b = copy.deepcopy((time_a, time_b))  # together: they share their machine
    seconds = [(time_a(), time_b()) for _ in range(uncounted + rounds)]
    return list(zip(*seconds[uncounted:], strict=True))


def one_after_the_other(time_a, time_b, rounds):
    """The same, but all of a before all of b."""
    time_a()
    time_b()
    seconds_of_a = [time_a() for _ in range(rounds)]
    seconds_of_b = [time_b() for _ in range(rounds)]
    return seconds_of_a, seconds_of_b


def ratios(a, b):
    return [x / y for x, y in zip(a, b, strict=True)]


def speed_ratio(time_a, time_b, rounds):
    return statistics.median(ratios(*in_turns(time_a, time_b, rounds)))


def ratio_of(summary, a, b):
    return summary(a) / summary(b)


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
        hints=(
            "how long would the calculation take alone, and the movement alone?",
            "they go on at the same time: which of the two decides when both are over?",
            "flop / peak and moved / bandwidth are both seconds: compare them",
        ),
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
        hints=(
            "count the operations of one image first: a multiply-add is two of them",
            "forward and backward together are three times the forward pass",
            "operations an image times images a second are operations a second: which share of the peak are they?",
        ),
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
            "counts belongs to the rows and was laid along the weights: give it a second dimension, counts[:, None]": (
                lambda gradients, counts: gradients * counts
            ),
        },
        hints=(
            "what would the sum of the gradients of all single images be, for process i?",
            "a row is a mean over its counts[i] images: times counts[i] it is their sum",
            "counts[:, None] has the shape (processes, 1) and multiplies row by row; add up dimension 0 then",
            "divide by the number of all images, counts.sum()",
        ),
    ),
    "10.4": Exercise(
        reference=speed_ratio,
        inputs=clocks,
        mistakes={
            "the first calls were counted: call each once before the first round, and forget what it returns": (
                lambda a, b, rounds: statistics.median(ratios(*in_turns(a, b, rounds, uncounted=0)))
            ),
            "the warm-up took the place of a round: count `rounds` of them after it": (
                lambda a, b, rounds: statistics.median(ratios(*in_turns(a, b, rounds - 1)))
            ),
            "all of a came before all of b, and the machine drifts in between: take turns, a, b, a, b": (
                lambda a, b, rounds: statistics.median(ratios(*one_after_the_other(a, b, rounds)))
            ),
            "all of a came before all of b, and one ratio was taken at the end: take turns, and divide in each round": (
                lambda a, b, rounds: ratio_of(statistics.median, *one_after_the_other(a, b, rounds))
            ),
            "that is the mean of the ratios: one interruption spoils it, take their median": (
                lambda a, b, rounds: statistics.mean(ratios(*in_turns(a, b, rounds)))
            ),
            "that is a ratio of two medians, from rounds that may lie far apart: divide in each round first": (
                lambda a, b, rounds: ratio_of(statistics.median, *in_turns(a, b, rounds))
            ),
            "that is a ratio of two sums, or means: one interruption spoils it, take the median of the ratios": (
                lambda a, b, rounds: ratio_of(sum, *in_turns(a, b, rounds))
            ),
            "that is a ratio of the shortest times: they come from different moments, divide in each round": (
                lambda a, b, rounds: ratio_of(min, *in_turns(a, b, rounds))
            ),
            "the ratio is upside down: a's seconds stand above, b's below": (
                lambda a, b, rounds: 1 / speed_ratio(a, b, rounds)
            ),
            "b was called before a in each round: the order is a, b, a, b": (
                lambda a, b, rounds: 1 / speed_ratio(b, a, rounds)
            ),
            "these are the ratios, round by round: return their median": (
                lambda a, b, rounds: ratios(*in_turns(a, b, rounds))
            ),
            "a clock takes no arguments: every time_a() runs its version once": lambda a, b, rounds: a(rounds),
        },
        hints=(
            "what disturbs the machine should disturb both alike: which calls must lie close together?",
            "call each once and forget what it returns; then `rounds` times a and b, one right after the other",
            "divide within the round: the drift from round to round then falls out",
            "statistics.median of the ratios does not mind that a few of them are far off",
        ),
        tolerance=1e-6,
    ),
}

PREDICTIONS = {"10.1": 3, "10.2": 3, "10.3": 3, "10.4": 3}
