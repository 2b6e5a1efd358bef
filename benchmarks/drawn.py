"""MNIST's digits redrawn as the pictures that people bring: other light, other pens, other places, other files."""

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 280  # pixels of the square in which a digit is redrawn


def ink_of(digit, thickness=0.0):
    """A digit (28, 28) as ink (SIDE, SIDE), 0 to 1, with sharp edges; ``thickness`` widens its stroke, in 28ths."""
    large = Image.fromarray(digit).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    smooth = ndimage.gaussian_filter(np.asarray(large, float) / 255, SIDE / 28 * 0.35)
    inside = smooth > 0.45
    outline = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    return np.clip(outline + thickness * SIDE / 28 / 2 + 0.5, 0, 1)


def placed(ink, shape, top, left, scale=1.0):
    """The ink on an empty field of ``shape``, scaled, its upper left corner at ``top``, ``left``."""
    small = ndimage.zoom(ink, scale, order=1) if scale != 1 else ink
    field = np.zeros(shape)
    height = min(small.shape[0], shape[0] - top)
    width = min(small.shape[1], shape[1] - left)
    field[top : top + height, left : left + width] = small[:height, :width]
    return field


def lit(ink, light=1.0, paper=0.95, pen=0.12, noise=0.008, rng=None):
    """What a camera sees, uint8: paper and pen reflect shares of the light, which may differ from place to place."""
    seen = light * (paper + (pen - paper) * ink)
    if rng is not None:
        seen = seen + rng.normal(0, noise, seen.shape)
    return np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8)


def coordinates(shape):
    """Down and right, each from 0 to 1, over a field."""
    down, right = np.mgrid[0 : shape[0], 0 : shape[1]]
    return down / (shape[0] - 1), right / (shape[1] - 1)


def turned(field, degrees, outside=0.0):
    return np.clip(ndimage.rotate(field, degrees, reshape=False, order=1, cval=outside), 0, 1)


def coloured(ink, pen, paper=(255, 255, 255)):
    """Ink of one colour on paper of another, uint8 (H, W, 3)."""
    shares = ink[..., None]
    return np.rint(np.array(paper) * (1 - shares) + np.array(pen) * shares).astype(np.uint8)


def with_alpha(ink, colour, hidden=(0, 0, 0)):
    """Ink on nothing at all: RGBA, with a ``hidden`` colour where it is transparent."""
    pixels = coloured((ink > 0).astype(float), colour, hidden)
    return Image.fromarray(np.dstack([pixels, np.rint(ink * 255).astype(np.uint8)]), "RGBA")


def grey(pixels):
    return Image.fromarray(pixels)


def light_from(side, shape, weakest=0.25):
    down, right = coordinates(shape)
    return {"left": 1 - (1 - weakest) * right, "below": weakest + (1 - weakest) * down}[side]


def vignette(shape, weakest=0.2):
    down, right = coordinates(shape)
    distance = np.hypot(down - 0.5, right - 0.5) / np.hypot(0.5, 0.5)
    return 1 - (1 - weakest) * distance**2


def shadow(shape):
    """The edge of a hand's shadow across the sheet."""
    down, right = coordinates(shape)
    return 1 - 0.45 / (1 + np.exp(-(right + 0.4 * down - 0.75) * 18))


def flash(shape):
    down, right = coordinates(shape)
    return 0.45 + 0.55 * np.exp(-((down - 0.4) ** 2 + (right - 0.55) ** 2) * 6)


def ruled(shape, every, squared=False, strength=0.25):
    """Lines of ink on the paper itself, 0 to 1."""
    lines = np.zeros(shape)
    lines[every // 2 :: every] = strength
    lines[every // 2 + 1 :: every] = strength
    if squared:
        lines[:, every // 2 :: every] = strength
        lines[:, every // 2 + 1 :: every] = strength
    return lines


def on_table(ink, rng, degrees=0.0, table=0.15, texture=0.0, margin=0.1, lamp=None):
    """A sheet with the ink on it, on a dark table."""
    side = ink.shape[0]
    border = round(side * margin)
    field = np.zeros((side + 2 * border, side + 2 * border))
    sheet = field.copy()
    sheet[border:-border, border:-border] = 1
    field[border:-border, border:-border] = ink
    sheet = turned(sheet, degrees)
    field = turned(field, degrees)
    down, _ = coordinates(sheet.shape)
    wood = table * (1 + texture * np.sin(60 * down + rng.normal(0, 0.3, sheet.shape)))
    seen = sheet * (0.94 - 0.8 * field) + (1 - sheet) * wood
    if lamp:
        seen = seen * light_from(lamp, sheet.shape, weakest=0.45)
    seen = seen + rng.normal(0, 0.01, sheet.shape)
    return grey(np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8))


def stored_turned(image, orientation):
    """The picture as a phone stores it: pixels turned, and an EXIF note of how to turn them back."""
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image.transpose(back[orientation]), {"exif": exif}


SQUARE = (SIDE, SIDE)
WIDE = (SIDE, SIDE * 3)
INK = {  # every kind of picture: its file's ending and what is drawn, of a digit (28, 28) and a source of chance
    "black on white": ("png", lambda d, r: grey(lit(ink_of(d), paper=1, pen=0))),
    "thin pen": ("png", lambda d, r: grey(lit(ink_of(d, -1.2)))),
    "thick pen": ("png", lambda d, r: grey(lit(ink_of(d, 1)))),
    "pencil": ("jpg", lambda d, r: grey(lit(ink_of(d, -0.6), paper=0.9, pen=0.6, noise=0.02, rng=r))),
    "blue ink": ("jpg", lambda d, r: grey(coloured(ink_of(d), (30, 50, 160), (240, 238, 230)))),
    "red ink": ("png", lambda d, r: grey(coloured(ink_of(d), (220, 30, 30)))),
    "yellow paper": ("png", lambda d, r: grey(coloured(ink_of(d), (20, 20, 20), (250, 225, 90)))),
    "lined paper": ("png", lambda d, r: grey(lit(np.maximum(ink_of(d), ruled(SQUARE, 40))))),
    "squared paper": ("jpg", lambda d, r: grey(lit(np.maximum(ink_of(d), ruled(SQUARE, 28, squared=True))))),
    "side light": ("jpg", lambda d, r: grey(lit(ink_of(d), light_from("left", SQUARE), rng=r))),
    "light from below": ("jpg", lambda d, r: grey(lit(ink_of(d), light_from("below", SQUARE), rng=r))),
    "dim room": ("jpg", lambda d, r: grey(lit(ink_of(d), 0.5, noise=0.03, rng=r))),
    "dark room": ("jpg", lambda d, r: grey(lit(ink_of(d), 0.2, noise=0.02, rng=r))),
    "vignette": ("jpg", lambda d, r: grey(lit(ink_of(d), vignette(SQUARE), rng=r))),
    "shadow of a hand": ("jpg", lambda d, r: grey(lit(ink_of(d), shadow(SQUARE), rng=r))),
    "flash": ("jpg", lambda d, r: grey(lit(ink_of(d), flash(SQUARE), rng=r))),
    "grey paper": ("png", lambda d, r: grey(lit(ink_of(d), paper=0.45, pen=0.1, rng=r))),
    "too bright": ("jpg", lambda d, r: grey(lit(ink_of(d), 1.3, pen=0.3, rng=r))),
    "out of focus": ("jpg", lambda d, r: grey(lit(ndimage.gaussian_filter(ink_of(d), 5), rng=r))),
    "moved": ("jpg", lambda d, r: grey(lit(ndimage.uniform_filter1d(ink_of(d), 14, axis=1), rng=r))),
    "margins x3": ("png", lambda d, r: grey(lit(placed(ink_of(d), (840, 840), 280, 280)))),
    "margins x6": ("jpg", lambda d, r: grey(lit(placed(ink_of(d, 0.3), (1600, 1600), 700, 600), rng=r))),
    "top left": ("png", lambda d, r: grey(lit(placed(ink_of(d), (560, 560), 0, 0)))),
    "bottom right": ("png", lambda d, r: grey(lit(placed(ink_of(d), (560, 560), 280, 280)))),
    "wide picture": ("jpg", lambda d, r: grey(lit(placed(ink_of(d), WIDE, 0, 300), rng=r))),
    "tall picture, side light": ("jpg", lambda d, r: grey(lit(placed(ink_of(d), WIDE[::-1], 250, 0),
                                                              light_from("left", WIDE[::-1]), rng=r))),
    "cut out closely": ("png", lambda d, r: grey(lit(cut_out(ink_of(d), 6)))),
    "turned by 8 degrees": ("png", lambda d, r: grey(lit(turned(ink_of(d), 8)))),
    "photograph of 5 megapixels": ("jpg", lambda d, r: grey(lit(placed(ink_of(d), (1920, 2560), 700, 900, 2),
                                                                light_from("left", (1920, 2560)), rng=r))),
    "60 pixels": ("png", lambda d, r: grey(lit(ink_of(d))).resize((60, 60), Image.Resampling.BOX)),
    "stored upside down": ("jpg", lambda d, r: stored_turned(grey(lit(ink_of(d))), 3)),
    "stored on its side": ("jpg", lambda d, r: stored_turned(grey(lit(placed(ink_of(d), (280, 400), 0, 60))), 6)),
    "stored on its other side": ("jpg", lambda d, r: stored_turned(grey(lit(ink_of(d))), 8)),
    "white ink on transparency": ("png", lambda d, r: with_alpha(ink_of(d), (255, 255, 255))),
    "black ink on transparency": ("png", lambda d, r: with_alpha(ink_of(d), (0, 0, 0))),
    "blue ink on transparency": ("webp", lambda d, r: with_alpha(ink_of(d), (40, 60, 220), (255, 255, 255))),
    "16 bits": ("png", lambda d, r: grey(lit(ink_of(d)).astype(np.uint16) * 257)),
    "12 bits": ("png", lambda d, r: grey(lit(ink_of(d)).astype(np.uint16) * 16)),
    "whole numbers": ("tif", lambda d, r: grey(lit(ink_of(d)).astype(np.int32) * 4)),
    "floats from 0 to 1": ("tif", lambda d, r: grey(lit(ink_of(d)).astype(np.float32) / 255)),
    "one bit": ("png", lambda d, r: grey(lit(ink_of(d))).convert("1")),
    "palette": ("gif", lambda d, r: grey(lit(ink_of(d))).convert("P")),
    "CMYK": ("jpg", lambda d, r: grey(coloured(ink_of(d), (20, 20, 60))).convert("CMYK")),
    "strongly compressed": ("jpg", lambda d, r: (grey(lit(ink_of(d), rng=r)), {"quality": 8})),
    "chalk": ("jpg", lambda d, r: grey(lit(ink_of(d), paper=0.2, pen=0.85, noise=0.03, rng=r))),
    "white on black": ("png", lambda d, r: grey(lit(ink_of(d), paper=0, pen=1))),
    "as in MNIST": ("png", lambda d, r: grey(d)),
    "as in MNIST, inverted": ("png", lambda d, r: grey(255 - d)),
    "as in MNIST, ten times as large": ("png", lambda d, r: grey(d).resize(SQUARE, Image.Resampling.NEAREST)),
    "sheet on a table": ("jpg", lambda d, r: on_table(ink_of(d), r)),
    "turned sheet on a table": ("jpg", lambda d, r: on_table(ink_of(d), r, degrees=9, margin=0.25)),
    "sheet on a table, side light": ("jpg", lambda d, r: on_table(ink_of(d), r, degrees=5, margin=0.2, lamp="left")),
    "sheet on wood": ("jpg", lambda d, r: on_table(ink_of(d), r, degrees=-4, table=0.3, texture=0.3, margin=0.3)),
}  # fmt: skip


def cut_out(ink, margin):
    rows = np.flatnonzero(ink.max(1) > 0.5)
    columns = np.flatnonzero(ink.max(0) > 0.5)
    tight = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.pad(tight, margin)


def draw(kind, digit, path, rng):
    """Write a picture of that kind of a digit, uint8 (28, 28), to ``path`` with the kind's ending; returns its path."""
    ending, picture = INK[kind]
    drawn = picture(digit, rng)
    image, options = drawn if isinstance(drawn, tuple) else (drawn, {})
    path = path.with_suffix(f".{ending}")
    image.save(path, **options)
    return path
