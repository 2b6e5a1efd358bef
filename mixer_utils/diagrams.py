"""Drawings of the Mixer: the whole network, the patch embedding, one layer, one MLP. `make figures` saves them as SVG.

One unit is one inch, so that lengths and font sizes go together. Everything that can stand in a row is a function
``(ax, x, y, width, ...)`` that draws around its centre, and ``chain`` joins such things with arrows.
One colour for each idea: grey images, blue tokens, orange token mixing, green channel mixing, purple norms, red head;
what belongs to none of them is white.
"""

from functools import partial

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.path import Path
from torch.nn import functional as F

from mixer_utils.plotting import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, as_picture, figure

INK, WHITE = "#1f2328", "#ffffff"
IMAGES, TOKENS, TRANSPOSED = r"$(B,\,\mathrm{in\_channels},\,H,\,W)$", "$(B, S, C)$", "$(B, C, S)$"
SIDE = 4  # patches along each side of the images drawn here


def architecture(image=None, label=5):
    """The whole network in one row, and below it one of its layers, unfolded.

    image: as in ``patch_embedding``; label: the class, 0 to 9, whose bar is the longest.
    """
    picture, ax = canvas(8, 4.05, (
        "The MLP-Mixer: an image is cut into patches, the stem makes a token of each, N Mixer layers keep the shape "
        "(B, S, C), then come a LayerNorm, the mean over tokens and a linear head with one score per class. One layer, "
        "unfolded: LayerNorm, token mixing on the transposed table, residual sum; LayerNorm, channel mixing, residual "
        "sum."))  # fmt: skip
    image, top, bottom = digit(image), 3.06, 0.8
    norm = partial(box, text="LayerNorm", colour=PURPLE, rotation=90)
    at = chain(
        ax, 0.1, top,
        (0.95, partial(pixels, image=image)),
        (0.26, ""), (1.06, partial(pixels, image=image, gap=0.04)),
        (0.26, ""), (0.62, partial(box, text="Stem\n\nLinear", colour=BLUE)),
        (0.64, TOKENS), (1.08, layers),
        (0.64, TOKENS), (0.28, norm),
        (0.2, ""), (0.28, partial(box, text="mean over $S$", rotation=90)),
        (0.46, "$(B, C)$"), (0.28, partial(box, text="Head: Linear", colour=RED, rotation=90)),
        (0.2, ""), (0.56, partial(bars, best=label)),
    )  # fmt: skip
    write(ax, at[0], top + 0.72, "image")
    write(ax, at[2], top + 0.72, r"$S$ patches, $P \times P$")
    write(ax, 0.1, top - 0.68, IMAGES, ha="left")
    write(ax, 7.9, top - 0.84, r"$(B,\,\mathrm{num\_classes})$", ha="right")

    corners = [(at[6] - 0.53, top - 0.65), (at[6] + 0.41, top - 0.65), (7.8, 1.72), (0.2, 1.72)]
    ax.add_patch(Polygon(corners, fc=tint(GREY, 0.07), ec="none", zorder=0))
    panel(ax, 0.1, 1.64, GREY)
    write(ax, 4, 1.9, "one Mixer layer, unfolded")
    norm, transpose = partial(norm, height=0.95), partial(box, text="T", height=0.3)
    tokens = partial(box, text="Token mixing\n\nMLP across\nthe $S$ positions", colour=ORANGE, height=0.95)
    channels = partial(tokens, text="Channel mixing\n\nMLP across\nthe $C$ channels", colour=GREEN)
    at = chain(
        ax, 0.14, bottom,
        (0.84, TOKENS), (0.28, norm),
        (0.16, ""), (0.26, transpose),
        (0.64, TRANSPOSED), (1.21, tokens),
        (0.16, ""), (0.26, transpose),
        (0.16, ""), (0.2, plus),
        (0.84, TOKENS), (0.28, norm),
        (0.16, ""), (1.21, channels),
        (0.16, ""), (0.2, plus),
        (0.66, TOKENS),
    )  # fmt: skip
    residual(ax, at[0] + 0.32, at[9], bottom, 0.7)
    residual(ax, at[10] + 0.32, at[15], bottom, 0.7)
    return picture


def patch_embedding(image=None):
    """From an image to the table of tokens.

    image: (1, H, W), (3, H, W) or (H, W), by default one of scikit-learn's digits. It is cut into 4 x 4 patches:
    raises ValueError unless both sides are multiples of 4.
    """
    picture, ax = canvas(8, 4.3, (
        "Patch embedding: a picture of a digit is cut into 4 by 4 patches, taken in row order, and one linear map with "
        "the same weights for every patch turns each of them into C numbers. The result is a table of S = 16 tokens, "
        "one a row, with C columns. Patch 5, counted from 0, is outlined at each stage."))  # fmt: skip
    image = digit(image)
    patches = [part for row in np.split(image, SIDE) for part in np.split(row, SIDE, axis=1)]
    pitch, top = 0.215, 3.98
    middle, bottom = top - pitch * len(patches) / 2, top - pitch * len(patches)
    weights = np.random.default_rng(1).normal(size=(patches[0].size, 8))
    tokens = np.tanh([0.3 * patch.ravel() @ weights / max(1, image.max()) for patch in patches])

    pixels(ax, 1.4, middle, 1.96, image, gap=0.04)
    arrow(ax, (2.45, middle), (2.95, middle), text="cut")
    box(ax, 4.7, middle, 1.5, "Stem\n\none Linear map\n\n$P \\cdot P \\cdot$in_channels\n$\\to C$ numbers\n\n"
        "the same weights\nfor every patch", BLUE, top - bottom)  # fmt: skip
    grid(ax, 6.86, middle, 8 * pitch, 16, 8, lambda i, j: tint(BLUE, 0.4 + 0.38 * tokens[i, j]))
    for i, patch in enumerate(patches):
        y = top - pitch * (i + 0.5)
        write(ax, 3.18, y, str(i), 9, ha="right")
        show(ax, 3.36, y, 0.185, patch, image)
        arrow(ax, (3.5, y), (3.92, y))
        arrow(ax, (5.48, y), (5.94, y))
    y_image, y_token = middle + 0.25, top - pitch * 5.5  # of patch 5, counted from 0: second row, second column
    for x, y, width, height in [
        (1.15, y_image, 0.46, 0.46), (3.36, y_token, 0.185, 0.185), (6.86, y_token, 8 * pitch, pitch),
    ]:  # fmt: skip
        corner = (x - width / 2, y - height / 2)
        ax.add_patch(Rectangle(corner, width, height, fc="none", ec=BLUE, lw=2.5, zorder=5))

    measure(ax, (0.42, middle + 1.08), (2.38, middle + 1.08), "$W$")
    measure(ax, (0.32, middle - 0.98), (0.32, middle + 0.98), "$H$")
    measure(ax, (0.42, middle - 1.08), (0.88, middle - 1.08), "$P$")
    measure(ax, (6.0, top + 0.1), (7.72, top + 0.1), "$C$")
    measure(ax, (7.82, bottom), (7.82, top), "$S$")
    write(ax, 1.4, 0.3, IMAGES)
    write(ax, 4.7, 0.3, r"$S = (H / P) \cdot (W / P) = 16$ patches")
    write(ax, 6.86, 0.3, TOKENS)
    return picture


def mixer_layer():
    """One Mixer layer: token mixing on the transposed table, then channel mixing, each with LayerNorm and residual."""
    picture, ax = canvas(8, 4.7, (
        "One Mixer layer. Token mixing: the table of tokens passes a LayerNorm and is transposed, one MLP, the same "
        "for every channel, mixes the S positions of each channel, and the table is transposed back and added to the "
        "input. Channel mixing: after a second LayerNorm one MLP, the same for every token, mixes the C channels of "
        "each token, and the result is added again."))  # fmt: skip
    upper, lower, up, height = 3.3, 0.98, 0.72, 0.97
    norm = partial(box, text="LayerNorm", colour=PURPLE, rotation=90, height=height)
    mlp = partial(box, colour=ORANGE, height=height, text="MLP\n$S \\to D_S \\to S$\nthe same for\nevery channel")
    column = partial(grid, rows=6, columns=4, fill=marked(ORANGE, column=1), below=TOKENS)
    row = partial(grid, rows=4, columns=6, fill=marked(ORANGE, row=1), below=TRANSPOSED)
    panel(ax, 2.48, 2.12, ORANGE, "Token mixing: across the positions, one channel at a time")
    at = chain(
        ax, 0.42, upper,
        (0.6, column), (0.36, ""), (0.28, norm),
        (0.78, "transpose"), (0.9, row),
        (0.2, ""), (1.14, mlp),
        (0.2, ""), (0.9, row),
        (0.78, "transpose"), (0.6, column),
        (0.22, ""), (0.2, plus),
    )  # fmt: skip
    residual(ax, at[1], at[12], upper, up)
    write(ax, at[0], upper + 0.57, "$C$")
    write(ax, at[0] - 0.42, upper, "$S$")
    arrow(ax, (at[12] + 0.1, upper), (7.8, upper), (7.8, 2.35), (0.22, 2.35), (0.22, lower), (0.42, lower))

    mlp = partial(mlp, colour=GREEN, text="MLP\n$C \\to D_C \\to C$\nthe same for\nevery token")
    row = partial(grid, rows=6, columns=4, fill=marked(GREEN, row=1), below=TOKENS)
    panel(ax, 0.1, 2.12, GREEN, "Channel mixing: across the channels, one token at a time")
    at = chain(
        ax, 0.42, lower,
        (0.6, row), (0.53, ""), (0.28, norm),
        (0.53, ""), (0.6, row),
        (0.53, ""), (1.2, mlp),
        (0.53, ""), (0.6, row),
        (0.53, ""), (0.2, plus),
        (0.53, ""), (0.6, row),
    )  # fmt: skip
    residual(ax, at[1], at[10], lower, up)
    return picture


def mlp_block():
    """The MLP that both halves of a layer use: as nodes above, as boxes with shapes below."""
    picture, ax = canvas(8, 4.1, (
        "The MLP block: a Linear layer widens dim numbers to mlp_dim, GELU bends each of them on its own, and a second "
        "Linear layer brings them back to dim. In token mixing the two sizes are S and D_S, in channel mixing C and "
        "D_C."))  # fmt: skip
    dim, wide = r"$(\dots,\,\mathrm{dim})$", r"$(\dots,\,\mathrm{mlp\_dim})$"
    linear = partial(box, text="Linear", height=0.46)
    at = chain(
        ax, 0.15, 1.15,
        (0.9, dim), (1.2, linear),
        (1.25, wide), (1.0, partial(linear, text="GELU")),
        (1.25, wide), (1.2, linear),
        (0.9, dim),
    )  # fmt: skip
    for k, text in zip((1, 3, 5), ("fully connected", "one by one", "fully connected"), strict=True):
        write(ax, at[k], 3.92, text)
    xs, counts = (at[0], at[2], at[4], at[6]), (4, 8, 8, 4)
    ys = [2.7 + 0.26 * (np.arange(count) - (count - 1) / 2) for count in counts]
    for y in ys[1]:
        arrow(ax, (xs[1] + 0.1, y), (xs[2] - 0.1, y))
    for k in (0, 2):
        pairs = np.array([[y0, y1] for y0 in ys[k] for y1 in ys[k + 1]])
        ax.plot(xs[k : k + 2], pairs.T, color=GREY, lw=0.6, alpha=0.5, zorder=1)
    for x, column, share in zip(xs, ys, (0.3, 0, 0.3, 0.3), strict=True):
        for y in column:
            ax.add_patch(Circle((x, y), 0.09, fc=tint(BLUE, share), ec=BLUE, lw=1.3, zorder=3))
    box(ax, at[3], 2.7, 1.0, height=2.1)
    z = torch.linspace(-3, 3, 61)
    for x, y, colour, width in [(z, 0 * z, GREY, 0.8), (0 * z, z, GREY, 0.8), (z, F.gelu(z), INK, 2)]:
        ax.plot(at[3] + 0.14 * x, 2.7 + 0.14 * y, color=colour, lw=width)
    box(ax, 2.15, 0.4, 3.5, "token mixing: $S \\to D_S \\to S$", ORANGE, 0.36)
    box(ax, 5.85, 0.4, 3.5, "channel mixing: $C \\to D_C \\to C$", GREEN, 0.36)
    return picture


# --- the parts --------------------------------------------------------------------------------------------------------


def canvas(width, height, alt):
    """A Picture and one axis without a frame whose units are inches, from (0, 0) at the lower left."""
    picture, ax = figure(size=(width, height), alt=alt)
    picture.set_layout_engine("none")
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")
    return picture, ax


def chain(ax, x, y, *steps):
    """Draw left to right, from ``x``: (width, text) is an arrow, (width, function) a thing. Returns all the centres."""
    centres = []
    for width, thing in steps:
        centres.append(x + width / 2)
        if callable(thing):
            thing(ax, centres[-1], y, width)
        else:
            arrow(ax, (x + 0.02, y), (x + width - 0.02, y), text=thing)
        x += width
    return centres


def write(ax, x, y, text, size=10, **style):
    """Text, centred on a point."""
    ax.text(x, y, text, **{"size": size, "ha": "center", "va": "center", "color": INK, **style})


def tint(colour, share=0.2):
    """``colour`` thinned with white to this share."""
    return tuple(1 - share * (1 - part) for part in to_rgb(colour))


def box(ax, x, y, width, text="", colour=WHITE, height=1.1, rotation=0):
    """A box with rounded corners around its text, centred on a point."""
    fill, edge = (WHITE, GREY) if colour == WHITE else (tint(colour), colour)
    corner, shape = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.05"
    ax.add_patch(FancyBboxPatch(corner, width, height, shape, fc=fill, ec=edge, lw=1.3))
    write(ax, x, y, text, rotation=rotation, linespacing=1.25)


def measure(ax, start, end, text):
    """A length: a thin double arrow with ``text`` in its middle."""
    ax.annotate("", start, end, arrowprops=dict(arrowstyle="<->", color=GREY, lw=1, shrinkA=0, shrinkB=0))
    middle = np.mean([start, end], axis=0)
    write(ax, *middle, text, bbox=dict(fc=WHITE, ec="none", pad=1.5))


def panel(ax, bottom, height, colour, title=""):
    """A pale ground, as wide as the drawing, for what belongs together."""
    shape = "round,pad=0,rounding_size=0.1"
    ax.add_patch(FancyBboxPatch((0.1, bottom), 7.8, height, shape, fc=tint(colour, 0.07), ec="none", zorder=0))
    write(ax, 0.42, bottom + height - 0.21, title, 11, ha="left", weight="bold")


def arrow(ax, *points, text=""):
    """An arrow along straight lines from point to point; ``text`` stands above the middle of a straight one."""
    ax.add_patch(FancyArrowPatch(path=Path(points), arrowstyle="-|>", mutation_scale=9, color=GREY, lw=1.2))
    (x0, y), (x1, _) = points[0], points[-1]
    if text:
        write(ax, (x0 + x1) / 2 - 0.02, y + 0.13, text)


def residual(ax, start, end, y, up):
    """The way around a branch: from the line at height ``y`` up, across and down into the plus at ``end``."""
    arrow(ax, (start, y), (start, y + up), (end, y + up), (end, y + 0.1))


def plus(ax, x, y, width):
    """The sign of a sum: a plus in a circle."""
    ax.add_patch(Circle((x, y), width / 2, fc=WHITE, ec=GREY, lw=1.3))
    ax.plot([x - 0.05, x + 0.05], [y, y], [x, x], [y - 0.05, y + 0.05], color=INK, lw=1.3)


def grid(ax, x, y, width, rows, columns, fill, below=""):
    """A table of squares, each with the colour ``fill(row, column)``, and a text below it."""
    side = width / columns
    left, top = x - width / 2, y + side * rows / 2
    for i, j in np.ndindex(rows, columns):
        ax.add_patch(Rectangle((left + side * j, top - side * (i + 1)), side, side, fc=fill(i, j), ec=WHITE, lw=1))
    write(ax, x, top - side * rows - 0.15, below)


def marked(colour, row=None, column=None):
    """A ``fill`` for ``grid``: the tokens' blue, and one row or column in another colour."""
    return lambda i, j: tint(colour, 0.75) if i == row or j == column else tint(BLUE)


def layers(ax, x, y, width):
    """N Mixer layers as a pile of cards."""
    x, width = x - 0.07, width - 0.14
    for back in (0.14, 0.07, 0):
        box(ax, x + back, y + back - 0.05, width, height=1.2)
    write(ax, x, y + 0.36, "Mixer layer")
    box(ax, x, y + 0.08, width - 0.16, "tokens", ORANGE, 0.25)
    box(ax, x, y - 0.22, width - 0.16, "channels", GREEN, 0.25)
    write(ax, x, y - 0.49, r"$\times\,N$")


def bars(ax, x, y, width, best=0):
    """A bar for each of ten classes, ``best`` the longest; the lengths are an illustration."""
    lengths = [0.1, 0.06, 0.16, 0.1, 0.05, 0.14, 0.2, 0.06, 0.18, 0.12]
    lengths[best] = 1
    for i, length in enumerate(lengths):
        at = y + 0.14 * (4.5 - i)
        write(ax, x - width / 2 + 0.05, at, str(i), 9)
        colour = tint(RED, 0.8 if i == best else 0.35)
        ax.add_patch(Rectangle((x - width / 2 + 0.14, at - 0.05), length * (width - 0.14), 0.1, fc=colour))


def digit(image=None):
    """(H, W) or (H, W, 3), as imshow wants it: ``image``, or one of scikit-learn's digits, enlarged to 28 x 28."""
    if image is None:
        from sklearn.datasets import load_digits

        small = torch.from_numpy(load_digits().images[35])[None, None]
        image = F.pad(F.interpolate(small, size=24, mode="bilinear"), (2, 2, 2, 2))[0].numpy()
    image = as_picture(image)
    height, width = image.shape[:2]
    if height % SIDE or width % SIDE:
        raise ValueError(f"The image has the size {height} x {width}: both sides must be multiples of {SIDE}.")
    return image


def show(ax, x, y, width, part, image):
    """A part of ``image``, with the whole image's range from black to white."""
    extent = (x - width / 2, x + width / 2, y - width / 2, y + width / 2)
    ax.imshow(part, cmap="gray", vmin=image.min(), vmax=image.max(), extent=extent, interpolation="none", zorder=2)


def pixels(ax, x, y, width, image, gap=0.0):
    """A square image; with a ``gap``, cut into its patches."""
    if not gap:
        return show(ax, x, y, width, image, image)
    step = (width + gap) / SIDE
    ax.add_patch(Rectangle((x - width / 2, y - width / 2), width, width, fc=tint(GREY, 0.5), ec="none"))
    for i, row in enumerate(np.split(image, SIDE)):
        for j, part in enumerate(np.split(row, SIDE, axis=1)):
            show(ax, x + step * (j - (SIDE - 1) / 2), y - step * (i - (SIDE - 1) / 2), step - gap, part, image)
