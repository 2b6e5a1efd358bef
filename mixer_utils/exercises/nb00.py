"""The exercises of notebook 00: counting patches, and a negative."""

import torch

from mixer_utils.exercises.exercise import Exercise


def images():
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),)
        for shape in [(2, 1, 4, 6), (3, 1, 8, 4)]
    ]


EXERCISES = {
    "00.1": Exercise(
        lambda height, width, patch_size: (height // patch_size) * (width // patch_size),
        lambda: [(28, 14, 7), (24, 36, 6), (224, 224, 16)],
        {
            "this is the number of patches in one row: multiply by the number of rows": lambda h, w, p: w // p,
            "this is the number of patches in one column: multiply by the number of columns": lambda h, w, p: h // p,
            "divide by patch_size twice, once for each direction": lambda h, w, p: h * w // p,
            "add nothing: rows of patches times columns of patches": lambda h, w, p: h // p + w // p,
        },
    ),
    "00.2": Exercise(
        lambda images: 255 - images,
        images,
        {
            "black would then be 1 more than white can be: the brightest pixel is 255, not 256": lambda x: (
                256 - x.int()
            ),
            "these pixels are negative numbers: subtract from 255": lambda x: -x.float(),
            "these pixels run from 0 to 1: stay with whole numbers from 0 to 255": lambda x: 1 - x / 255,
        },
    ),
}

PREDICTIONS = {}
