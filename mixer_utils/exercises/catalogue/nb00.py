"""The exercises of notebook 00: counting patches, and a negative."""

import torch
from torch.nn import functional as F

from mixer_utils.exercises.exercise import Exercise


def some_images():
    """(images,): uint8 (B, 1, H, W), with a black pixel in each and no white one."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for shape in [(2, 1, 4, 6), (3, 1, 8, 5)]:
        images = torch.randint(0, 255, shape, generator=generator, dtype=torch.uint8)  # 0 to 254
        images[:, :, 0, 0] = 0
        cases.append((images,))
    return cases


EXERCISES = {
    "00.1": Exercise(
        reference=lambda height, width, P: F.unfold(torch.zeros(1, 1, height, width), P, stride=P).shape[2],
        inputs=lambda: [(20, 30, 5), (28, 21, 7), (160, 224, 16)],
        mistakes={
            "this is the number of patches in one row: multiply by the number of rows": (
                lambda height, width, P: width // P
            ),
            "this is the number of patches in one column: multiply by the number of columns": (
                lambda height, width, P: height // P
            ),
            "a patch covers patch_size * patch_size pixels: divide by patch_size twice, once for each direction": (
                lambda height, width, P: height * width // P
            ),
            "rows and columns of patches were added: each row holds all the columns, so multiply": (
                lambda height, width, P: height // P + width // P
            ),
            "this is the number of pixels in one patch: count the patches in the image": lambda height, width, P: P * P,
            "this takes the image to be square: count the columns of patches from the width": (
                lambda height, width, P: (height // P) ** 2
            ),
            "this takes the image to be square: count the rows of patches from the height": (
                lambda height, width, P: (width // P) ** 2
            ),
        },
        hints=(
            "how many patches lie side by side in one row? And how many rows of them are there?",
            "width // patch_size patches lie in a row; the rows are counted in the same way, from the height",
        ),
    ),
    "00.2": Exercise(
        reference=lambda images: 255 - images,
        inputs=some_images,
        mistakes={
            "256 - images and -images leave black as it was, since what would be 256 starts again at 0: subtract from "
            "255": lambda images: -images,
            "black would then be 1 more than white can be: the brightest pixel is 255, not 256": (
                lambda images: 256 - images.int()
            ),
            "these pixels are negative numbers: subtract from 255": lambda images: -images.float(),
            "white is 255 here, not 1: 1 - images falls below 0 and starts again at 255": lambda images: 1 - images,
            "these pixels run from 0 to 1: stay with whole numbers from 0 to 255": lambda images: 1 - images / 255,
            "the subtraction is the wrong way round: pixels below 0 start again at 255, so take images away from 255": (
                lambda images: images - 255
            ),
            "you subtracted from the brightest pixel there is: "
            "white is 255, also where no pixel of an image is white": lambda images: images.max() - images,
            "this mirrors the images: in a negative each pixel keeps its place and changes its brightness": (
                lambda images: images.flip(3)
            ),
            "this leaves only black and white: a negative keeps the greys between": lambda images: (images < 128) * 255,
        },
        hints=(
            "what must become of black, 0? And of white, 255?",
            "one subtraction does it for all pixels at once: some number minus images",
            "the number is the one that makes 0 of 255",
        ),
    ),
}

PREDICTIONS = {"00.1": 3, "00.2": 3}
