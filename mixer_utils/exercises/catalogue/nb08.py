"""Exercises of notebook 08: average pooling as a matrix, shuffles undone and matched, and an ablation planned."""

import math
import statistics

import torch
from torch.nn import functional as F

from mixer_utils.exercises.exercise import Exercise


def shuffled(images, patches, pixels, patch_size):
    """Grey images (B, 1, H, W) with their patches in the order ``patches``, and in each its pixels as ``pixels``."""
    rows = F.unfold(images, patch_size, stride=patch_size)[:, pixels][:, :, patches]
    return F.fold(rows, images.shape[2:], patch_size, stride=patch_size)


def put_back(images, patches, pixels, patch_size):
    """Every pixel of shuffled images goes back to where a numbered image, shuffled too, says that it came from."""
    _, _, height, width = images.shape
    numbers = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width)
    came_from = shuffled(numbers, patches, pixels, patch_size).flatten().long()
    result = torch.zeros_like(images).flatten(2)
    result[..., came_from] = images.flatten(2)
    return result.view_as(images)


def some_shuffles():
    """(shuffled images, patches, pixels, patch_size), none of the permutations its own inverse."""
    generator = torch.Generator().manual_seed(8)
    cases = []
    for B, height, width, P in [(2, 6, 9, 3), (3, 8, 4, 2)]:
        patches = torch.randperm(height * width // P**2, generator=generator)
        pixels = torch.randperm(P**2, generator=generator)
        images = torch.randn(B, 1, height, width, generator=generator)
        cases.append((shuffled(images, patches, pixels, P), patches, pixels, P))
    return cases


def swapped(images, patches, pixels, P):
    rows = F.unfold(images, P, stride=P)[:, patches.argsort()][:, :, pixels.argsort()]
    return F.fold(rows, images.shape[2:], P, stride=P)


def some_matrices():
    """(matrix, patches): token mixing as an S x S matrix, and a permutation that is not its own inverse."""
    generator = torch.Generator().manual_seed(49)
    return [(torch.randn(S, S, generator=generator), torch.randperm(S, generator=generator)) for S in (5, 7, 9)]


def between_shuffled(matrix, patches):
    """Undo the shuffle, apply the matrix, shuffle again: all three as one matrix."""
    shuffle = torch.eye(len(patches))[patches]
    return shuffle @ matrix @ torch.linalg.inv(shuffle)


def made_up_laboratory(best, rate_of_best, luck):
    """A ``measure(variant, rate, seed)`` that trains nothing: every variant has a rate of its own and a bit of luck."""

    def measure(variant, rate, seed):
        if variant not in best:
            raise ValueError(f"there is no variant {variant!r}: choose one of {', '.join(best)}")
        off = math.log2(rate / rate_of_best[variant])
        number = 1000 * seed + 100 * list(best).index(variant) + round(10 * math.log2(rate) + 100)
        chance = torch.randn((), generator=torch.Generator().manual_seed(number)).item()
        return best[variant] - 0.01 * off**2 + luck * chance

    return measure


def laboratories():
    """(measure, variants, rates, choosing, reporting), the rates' best not the same for all variants."""
    three = made_up_laboratory(
        best={"Mixer": 0.94, "average": 0.75, "attention": 0.93},
        rate_of_best={"Mixer": 0.004, "average": 0.016, "attention": 0.002},
        luck=0.03,
    )
    four = made_up_laboratory(
        best={"Mixer": 0.91, "average": 0.84, "attention": 0.92, "convolution": 0.915},
        rate_of_best={"Mixer": 0.01, "average": 0.0025, "attention": 0.04, "convolution": 0.02},
        luck=0.04,
    )
    return [
        (three, ["Mixer", "average", "attention"], [0.002, 0.004, 0.008, 0.016], [10, 11], [0, 1, 2]),
        (four, ["Mixer", "average", "attention", "convolution"], [0.0025, 0.01, 0.04], [5, 6, 7], [20, 21, 22, 23]),
    ]


def over(seeds, measure, variant, rate):
    return statistics.mean(measure(variant, rate, seed) for seed in seeds)


def best_rate(measure, variant, rates, seeds):
    return max(rates, key=lambda rate: over(seeds, measure, variant, rate))


def reported(measure, variants, rates, choosing, reporting):
    """The mean accuracy of each variant on ``reporting``, at the rate that was best on ``choosing``."""
    return by_seed(measure, variants, rates, choosing, reporting, statistics.mean)


def against_the_first(accuracies):
    return [accuracy - accuracies[0] for accuracy in accuracies]


def ablation(measure, variants, rates, choosing, reporting):
    return against_the_first(reported(measure, variants, rates, choosing, reporting))


def at_one_rate(measure, variants, rates, choosing, reporting):
    rate = best_rate(measure, variants[0], rates, choosing)
    return against_the_first([over(reporting, measure, variant, rate) for variant in variants])


def by_seed(measure, variants, rates, choosing, reporting, pick):
    """As ``reported``, but with ``pick`` in place of the mean over the reporting seeds."""
    results = []
    for variant in variants:
        rate = best_rate(measure, variant, rates, choosing)
        results.append(pick([measure(variant, rate, seed) for seed in reporting]))
    return results


def best_of_each_seed(measure, variants, rates, choosing, reporting):
    def mean_of_bests(variant):
        return statistics.mean(max(measure(variant, rate, seed) for rate in rates) for seed in reporting)

    return [mean_of_bests(variant) for variant in variants]


def mean_of_all_rates(measure, variants, rates, choosing, reporting):
    return [statistics.mean(over(reporting, measure, variant, rate) for rate in rates) for variant in variants]


EXERCISES = {
    "08.1": Exercise(
        reference=lambda num_tokens: torch.full((num_tokens, num_tokens), 1 / num_tokens),
        inputs=lambda: [(4,), (7,), (16,)],
        mistakes={
            "this adds the tokens up: a mean has weights that add up to 1 in every row": lambda S: torch.ones(S, S),
            "this is the identity, every token keeps what it has: each output takes something from every token": (
                lambda S: torch.eye(S)
            ),
            "this only makes each token smaller: off the diagonal there must be weights as well": (
                lambda S: torch.eye(S) / S
            ),
            "this divides by S twice: each row, not the whole matrix, adds up to 1": lambda S: torch.ones(S, S) / S**2,
            "this is one row of S weights: there are S output tokens, so the matrix has S such rows": (
                lambda S: torch.ones(1, S) / S
            ),
            "this is one column: there are S input tokens, so every row has S weights": lambda S: torch.ones(S, 1) / S,
            "this is a vector: the matrix has a row for each output token, (S, S)": lambda S: torch.ones(S) / S,
            "// cuts the fraction off and leaves 0: divide with /": lambda S: torch.ones(S, S) // S,
        },
        hints=(
            "row i of the matrix holds the weights with which output token i takes from every input token",
            "all output tokens are the same here, so all rows are the same",
            "a mean of S numbers takes each of them with the weight 1 / S",
        ),
    ),
    "08.2": Exercise(
        reference=put_back,
        inputs=some_shuffles,
        mistakes={
            "this shuffles once more: use the orders that undo the two permutations, each one's argsort": shuffled,
            "these are the images as they came: nothing was undone": lambda images, patches, pixels, P: images,
            "the patches are back, but the pixels within them are still shuffled: undo pixels as well": (
                lambda images, patches, pixels, P: shuffled(images, patches.argsort(), torch.arange(P * P), P)
            ),
            "the pixels within the patches are back, but the patches are not: undo patches as well": (
                lambda images, patches, pixels, P: shuffled(images, torch.arange(len(patches)), pixels.argsort(), P)
            ),
            "the patches are back, but the pixels were shuffled once more: take pixels.argsort() too": (
                lambda images, patches, pixels, P: shuffled(images, patches.argsort(), pixels, P)
            ),
            "the pixels are back, but the patches were shuffled once more: take patches.argsort() too": (
                lambda images, patches, pixels, P: shuffled(images, patches, pixels.argsort(), P)
            ),
            "reading a permutation backwards does not undo it: argsort says where each number went": (
                lambda images, patches, pixels, P: shuffled(images, patches.flip(0), pixels.flip(0), P)
            ),
            "the pixels are right, but still one column for each patch: put them together with F.fold": (
                lambda images, patches, pixels, P: F.unfold(images, P, stride=P)[:, pixels.argsort()][
                    :, :, patches.argsort()
                ]
            ),
            "patches and pixels are swapped: after F.unfold, dimension 1 counts pixels and dimension 2 patches": (
                swapped
            ),
            "without stride= F.unfold takes overlapping windows: give stride=patch_size to unfold and fold": (
                lambda images, patches, pixels, P: F.fold(
                    F.unfold(images, P)[:, pixels.argsort()][:, :, patches.argsort()], images.shape[2:], P
                )
            ),
        },
        hints=(
            "the shuffled image is taken apart and put together as the original was: only the two orders are others",
            "if y = x[order], then y[order.argsort()] is x",
            "call shuffled(images, ...) with another order of patches and another order of pixels",
        ),
    ),
    "08.3": Exercise(
        reference=between_shuffled,
        inputs=some_matrices,
        mistakes={
            "the rows are in the new order, the columns are not: the shuffled tokens come in through the columns": (
                lambda matrix, patches: matrix[patches]
            ),
            "the columns are in the new order, the rows are not: what goes out must be shuffled as well": (
                lambda matrix, patches: matrix[:, patches]
            ),
            "matrix[patches, patches] picks S single numbers: order the rows first, then the columns": (
                lambda matrix, patches: matrix[patches, patches]
            ),
            "the rows were ordered twice: [patches][patches] works on rows both times, columns need [:, patches]": (
                lambda matrix, patches: matrix[patches][patches]
            ),
            "this undoes the permutation instead of following it: "
            "new token s is old token patches[s], without argsort": (
                lambda matrix, patches: matrix[patches.argsort()][:, patches.argsort()]
            ),
            "the columns undo the permutation and the rows follow it: both follow it": (
                lambda matrix, patches: matrix[patches][:, patches.argsort()]
            ),
            "rows and columns are swapped in the result: no transpose is needed": (
                lambda matrix, patches: matrix[patches][:, patches].T
            ),
            "this is the matrix as it came: it expects the tokens in their old order": lambda matrix, patches: matrix,
        },
        hints=(
            "number [i, j] says how much of input token j goes into output token i",
            "new token s is old token patches[s], for inputs and for outputs",
            "so new [i, j] is old [patches[i], patches[j]]: rows and columns, one after the other",
        ),
    ),
    "08.4": Exercise(
        reference=ablation,
        inputs=laboratories,
        mistakes={
            "all variants were run at the first one's best rate, which favours it: choose a rate for each": at_one_rate,
            "the rates were chosen on the reporting seeds, so the luck of these seeds is in the result: choose on "
            "the choosing seeds alone": lambda m, v, r, c, p: ablation(m, v, r, p, p),
            "the result comes from the choosing seeds, whose luck picked the rates: run the reporting seeds": (
                lambda m, v, r, c, p: ablation(m, v, r, c, c)
            ),
            "choosing and reporting seeds were thrown together, in both steps: keep them apart": (
                lambda m, v, r, c, p: ablation(m, v, r, [*c, *p], [*c, *p])
            ),
            "the rates were chosen on all seeds: leave the reporting ones out": (
                lambda m, v, r, c, p: ablation(m, v, r, [*c, *p], p)
            ),
            "this reports all seeds: the choosing ones have done their part": (
                lambda m, v, r, c, p: ablation(m, v, r, c, [*c, *p])
            ),
            "this is the best seed of each variant: report the mean over the seeds": (
                lambda *inputs: against_the_first(by_seed(*inputs, max))
            ),
            "this is one seed: report the mean over all reporting seeds": (
                lambda *inputs: against_the_first(by_seed(*inputs, lambda accuracies: accuracies[0]))
            ),
            "each seed was given its own best rate: "
            "choose one rate for a variant, before the reporting seeds are run": (
                lambda *inputs: against_the_first(best_of_each_seed(*inputs))
            ),
            "this is the mean over all rates: take each variant at its best one": (
                lambda *inputs: against_the_first(mean_of_all_rates(*inputs))
            ),
            "the signs are swapped: a variant that is worse than the first has a negative number": (
                lambda *inputs: [-difference for difference in ablation(*inputs)]
            ),
            "these are the accuracies: subtract the first variant's": reported,
            "the first variant is missing: its number is 0, and it belongs in front": (
                lambda *inputs: ablation(*inputs)[1:]
            ),
        },
        hints=(
            "there are two steps, and they share no seed: choose a rate for each variant, then measure",
            "max(rates, key=...) gives the rate with the highest mean over the choosing seeds",
            "the mean over the reporting seeds, at that rate, is a variant's accuracy",
            "return one number for each variant: its accuracy minus that of variants[0]",
        ),
        tolerance=1e-6,
    ),
}

PREDICTIONS = {"08.1": 3, "08.2": 3, "08.3": 3, "08.4": 3}
