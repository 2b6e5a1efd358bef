"""A photograph of a handwritten digit, made into what MNIST's makers would have made of it: 28 x 28, light on black.

A network answers for the pictures that it was trained on. MNIST's were scanned in black and white, scaled so that the
longer side of the digit is 20 pixels, and moved so that its centre of mass is the middle of 28 x 28
(https://web.archive.org/web/2016/http://yann.lecun.com/exdb/mnist/). ``read_digit`` takes the same steps, after those
that a photograph needs before: find the sheet, take the light away, tell ink from paper.
"""

import numpy as np
from scipy import ndimage

from mixer_utils._files import DataError
from mixer_utils._pictures import decode

LARGEST_SIDE = 400  # pixels; more tell nothing about a digit, and cost time
SMALLEST_SIDE = 12
FAINTEST = 0.07  # the smallest share of the paper's light that ink must take away


def read_digit(path, box=20, size=28):
    """A picture of one digit as uint8 (size, size), light ink on black, its longer side ``box`` pixels.

    A picture that already has ``size`` x ``size`` pixels keeps its frame; dark ink on light is inverted. Raises
    DataError for a file that cannot be read, where nothing is drawn, and where several digits are.
    """
    *_, given = stages(path, box, size).values()
    return given


def stages(path, box=20, size=28):
    """What ``read_digit`` makes of a picture, step by step: a dict of arrays (H, W), the last one its result.

    ``brightness``, ``sheet`` and ``ink`` (how much of it) and ``digit`` run from 0 to 1; ``frame`` is uint8.
    """
    image = decode(path)
    try:
        brightness = brightness_of(image)
        if image.size == (size, size):
            return {"brightness": brightness, "frame": as_framed(brightness)}
        if min(brightness.shape) < SMALLEST_SIDE:
            height, width = brightness.shape
            raise DataError(f"it has {width} x {height} pixels: give a picture of {SMALLEST_SIDE} or more each way.")
        sheet = sheet_of(brightness)
        ink = ink_on(sheet)
        digit = digit_of(ink)
        frame = framed(digit, box, size)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return {"brightness": brightness, "sheet": sheet, "ink": ink, "digit": digit, "frame": frame}


# --- from a picture to ink -------------------------------------------------------------------------------------------


def brightness_of(image):
    """The brightness, 0 to 1, of an image of Pillow's, float (H, W); what is transparent is the opposite of the ink."""
    most = max(image.size)
    if most > LARGEST_SIDE:
        image = image.reduce(most // LARGEST_SIDE) if most >= 2 * LARGEST_SIDE else image
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    alpha = np.asarray(image.getchannel("A"), float) / 255 if "A" in image.getbands() else None
    shade = np.asarray(image.convert("L"), float) / 255
    if alpha is None or alpha.min() == 1:
        return shade
    if alpha.max() == 0:
        raise DataError("nothing is drawn: all of the picture is transparent.")
    paper = 1.0 if np.average(shade, weights=alpha) < 0.5 else 0.0
    return alpha * shade + (1 - alpha) * paper


def as_framed(shade):
    """A picture with MNIST's own frame: left as it is, or inverted where its border is light."""
    if np.ptp(shade) < FAINTEST:
        raise DataError("nothing is drawn: it is all of one brightness.")
    border = np.concatenate([shade[0], shade[-1], shade[:, 0], shade[:, -1]])
    return to_uint8(1 - shade if border.mean() > 0.5 else shade)


def sheet_of(shade):
    """The sheet alone where a light sheet lies on something dark, else the picture as it is."""
    side = max(shade.shape)
    light = ndimage.gaussian_filter(shade, side / 200)
    bright = light > otsu(light)
    sheet = ndimage.binary_fill_holes(largest(bright))
    inner = ndimage.binary_erosion(sheet, iterations=max(1, side // 50))
    outer = ndimage.binary_dilation(sheet, iterations=max(1, side // 50))
    ring_in = sheet & ~inner
    ring_out = outer & ~sheet
    if not inner.any() or not ring_out.any():
        return shade
    border = np.concatenate([sheet[0], sheet[-1], sheet[:, 0], sheet[:, -1]])
    dark_inside = np.mean(~bright[sheet])
    step = np.median(shade[ring_in]) - np.median(shade[ring_out])
    contrast = np.median(shade[inner]) - np.median(shade[~outer]) if (~outer).any() else 0
    is_sheet = (
        sheet.mean() > 0.1
        and border.mean() < 0.4
        and 0.9 < rectangularity(sheet) < 1.03
        and convexity(sheet) > 0.95
        and 0.002 < dark_inside < 0.3
        and step > 0.5 * contrast > 0.1
    )
    if not is_sheet:
        return shade
    # What is not sheet takes the brightness of the nearest point that is.
    nearest = ndimage.distance_transform_edt(~inner, return_distances=False, return_indices=True)
    filled = shade[tuple(nearest)]
    rows = np.flatnonzero(inner.any(1))
    columns = np.flatnonzero(inner.any(0))
    return filled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def rectangularity(mask):
    """How much of a rectangle a region is, whatever way it is turned: 1 for any rectangle, 1.05 for an ellipse.

    A rectangle's variances along its sides are width² / 12 and height² / 12, so that their product tells its area.
    """
    down, right = np.nonzero(mask)
    spread = np.linalg.det(np.cov(down, right)) if len(down) > 2 else 0
    return len(down) / (12 * np.sqrt(spread)) if spread > 0 else 0


def convexity(mask):
    """The area of a region as a share of that of its convex hull."""
    from scipy.spatial import ConvexHull

    edge = mask & ~ndimage.binary_erosion(mask)
    return mask.sum() / ConvexHull(np.argwhere(edge)).volume if edge.sum() > 20 else 0


def ink_on(shade):
    """How much ink is at every point, 0 to 1, float (H, W): the light that is missing, as a share of the paper's.

    Paper is what most of the picture is. Its brightness is a smooth surface, so that shadows and lamps do not count.
    """
    shade = shade + 0.02  # black paper reflects something, too
    lit = shade / paper_of(shade)
    difference = lit - 1
    noise = 3 * np.median(np.abs(difference))
    darker = np.clip(-difference - noise, 0, None).sum()
    lighter = np.clip(np.minimum(difference, 1) - noise, 0, None).sum()
    if lighter > darker:
        shade = 1.04 - shade
        lit = shade / paper_of(shade)
    smooth = ndimage.gaussian_filter(lit, max(shade.shape) / 400)
    window = max(3, round(0.5 * min(shade.shape)))
    paper = ndimage.gaussian_filter(ndimage.grey_closing(smooth, size=window), window / 6)
    ink = 1 - smooth / np.minimum(paper, 1.2)
    bare = np.quantile(ink, 0.2)  # of the closing, which takes noisy paper for as bright as its brightest grains
    return np.clip((ink - bare) / (1 - bare), 0, 1)


def paper_of(shade):
    """The paper's brightness at every point: a smooth surface through the logarithms of most pixels.

    It is flat at first, then a slope, then curved: so it has found the paper before it could bend into the ink.
    """
    step = max(1, max(shade.shape) // 80)
    small = np.log(ndimage.uniform_filter(shade, step)[::step, ::step])
    values = small.ravel()
    margin = np.ones_like(small)
    margin[len(small) // 10 : -len(small) // 10, small.shape[1] // 10 : -small.shape[1] // 10] = 0.25
    margin = margin.ravel()  # ink is rarely at the edges of a picture
    weights = margin
    for degree in (0, 1, 2, 4):
        terms = surface_terms(small.shape, degree)
        for _ in range(4):  # pixels far from the surface, the ink, count less each time
            weighted = terms * weights[:, None]
            factors = np.linalg.solve(weighted.T @ terms, weighted.T @ values)  # least squares
            distance = np.abs(values - terms @ factors)
            scale = max(2 * np.median(distance), 0.02)
            weights = margin / (1 + (distance / scale) ** 2) ** 2
    return np.exp(surface_terms(shade.shape, degree) @ factors).reshape(shade.shape)


def surface_terms(shape, degree):
    """All products of powers of the two coordinates up to a degree, at every point of a picture: (H * W, terms)."""
    down, right = (np.polynomial.legendre.legvander(np.linspace(-1, 1, size), degree) for size in shape)
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.stack([np.outer(down[:, i], right[:, j]).ravel() for i, j in powers], axis=1)


# --- from ink to a digit ---------------------------------------------------------------------------------------------


def digit_of(ink):
    """The ink of the digit alone, 0 to 1, without specks, ruled lines and dark edges, cut out along its box."""
    threshold = max(otsu(ink), FAINTEST / 2)
    strength = np.quantile(ink[ink > threshold], 0.8) if (ink > threshold).any() else 0
    if strength < FAINTEST:
        raise DataError("nothing is drawn: no ink stands out from the paper.")
    parts, count = ndimage.label(ink > strength / 2, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(parts)
    areas = ndimage.sum_labels(np.ones_like(ink), parts, np.arange(1, count + 1))
    kept = [i for i in range(count) if areas[i] > 0.02 * areas.max() and not in_corner(boxes[i], ink.shape)]
    longest = max((part.stop - part.start for i in kept for part in boxes[i]), default=0)
    if areas.max() < 0.2 * areas.sum() or longest < 0.04 * max(ink.shape):
        raise DataError("nothing is drawn: there are specks or dark corners, and no stroke.")
    inside = [i for i in kept if not at_border(boxes[i], ink.shape)]
    if inside and max(areas[i] for i in inside) > 0.2 * areas.max():
        kept = inside
    several(boxes, kept)
    mask = ndimage.binary_dilation(np.isin(parts, np.array(kept) + 1), iterations=max(2, max(ink.shape) // 100))
    digit = np.clip((ink / strength - 0.3) / 0.5, 0, 1) * mask
    if digit.max() <= 0.5:
        raise DataError("the stroke is much fainter than what is at the picture's edge: cut that off.")
    rows = np.flatnonzero(digit.max(1) > 0.5)
    columns = np.flatnonzero(digit.max(0) > 0.5)
    return digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def at_border(box, shape):
    """Whether a region's box touches the edge of the picture."""
    return any(part.start == 0 or part.stop == size for part, size in zip(box, shape, strict=True))


def in_corner(box, shape):
    """Whether a region's box lies in one corner of the picture: where light falls off, not where people write."""
    return all(
        (part.start == 0) != (part.stop == size) and part.stop - part.start < size / 2
        for part, size in zip(box, shape, strict=True)
    )


def several(boxes, kept):
    """Raise DataError where two tall strokes stand beside each other."""
    heights = {i: boxes[i][0].stop - boxes[i][0].start for i in kept}
    tall = sorted((boxes[i][1].start, boxes[i][1].stop) for i in kept if heights[i] > 0.6 * max(heights.values()))
    groups = 1
    end = tall[0][1]
    for start, stop in tall[1:]:
        groups += start >= end
        end = max(end, stop)
    if groups > 1:
        raise DataError(f"{groups} digits seem to be drawn: cut out one, a picture of a digit each.")


def framed(digit, box=20, size=28, by_mass=True):
    """A cut-out digit in MNIST's frame, uint8 (size, size): longer side ``box``, centre of mass in the middle.

    Without ``by_mass`` the middle of its box is there.
    """
    from PIL import Image

    scale = box / max(digit.shape)
    height, width = (max(1, round(side * scale)) for side in digit.shape)
    small = Image.fromarray(digit.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    small = np.asarray(small)
    small = np.clip(small / np.quantile(small[small > 0.1], 0.75), 0, 1)  # a thin pen is as black as a thick one
    down, right = ndimage.center_of_mass(small) if by_mass else (height / 2 - 0.5, width / 2 - 0.5)
    frame = np.zeros((size, size))
    top = min(max(0, round(size / 2 - down)), size - height)
    left = min(max(0, round(size / 2 - right)), size - width)
    frame[top : top + height, left : left + width] = small
    return to_uint8(frame)


# --- small things ----------------------------------------------------------------------------------------------------


def to_uint8(shares):
    """Numbers from 0 to 1 as uint8, 0 to 255."""
    return np.rint(shares * 255).astype(np.uint8)


def largest(mask):
    """The largest connected region of a mask."""
    parts, _ = ndimage.label(mask)
    counts = np.bincount(parts.ravel())
    counts[0] = 0
    return parts == counts.argmax() if counts.any() else mask


def otsu(values):
    """The threshold that parts values best in two groups: it makes the variance between their means the largest.

    Otsu, "A Threshold Selection Method from Gray-Level Histograms" (1979).
    """
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return centres[np.nan_to_num(between).argmax()]
