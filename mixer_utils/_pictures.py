"""Picture files as people have them, decoded: upright, 8 bits a channel, transparency kept. All readers begin here."""

import contextlib
import os
import warnings

import numpy as np

from mixer_utils._files import DataError

# What a picture of deeper grey was counted in: the first of these that holds its brightest pixel. (A scanner of 12 bits
# writes 0 to 4095 into numbers of 16, and no file format says so in a way that Pillow tells.)
FULL_SCALES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 32))
PLAIN_MODES = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "La": "LA", "RGBa": "RGBA"}


def decode(path):
    """A picture file as an image of Pillow's, of mode L, LA, RGB or RGBA: turned as its EXIF data say, 0 to 255.

    Of several frames it is the first one. Pictures of 16 bits, of 32 or of floating-point numbers come by their full
    scale (see ``eight_bits``). Raises DataError, in one sentence, for a file that is missing, damaged, too large or no
    picture.
    """
    from PIL import Image, ImageOps

    register_heif()
    try:
        with Image.open(path) as image:
            image.verify()  # the checksums of a PNG: a flipped byte would else be a picture like any other
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large picture, odd EXIF data: both are read
            with Image.open(path) as image:
                return plain(ImageOps.exif_transpose(image))
    except DataError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path} has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels: make the picture smaller, a side of 1,000 "
            "pixels is plenty."
        ) from error
    except Exception as error:  # Pillow's are of many kinds, by format and by damage
        raise DataError(f"{path} cannot be read ({why_not(path)}).") from error


def plain(image):
    """An image of any of Pillow's modes in one of four: L, LA, RGB, RGBA."""
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(eight_bits(np.asarray(image)))
    if image.mode in PLAIN_MODES:
        return image.convert(PLAIN_MODES[image.mode])
    return image.convert("RGBA" if image.has_transparency_data else "RGB")  # palettes, CMYK, YCbCr, LAB, HSV


def eight_bits(values):
    """Numbers of any type and range as uint8, 0 to 255.

    What lies in 0 to 1 and has fractions, or is all of 0 and 1, counts as a share; else full scale is the smallest of
    255, 1023, 4095, 16383, 65535 … that holds the largest number. Where numbers are negative, the smallest becomes 0
    and the largest 255. Raises DataError where some are not finite.
    """
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError("some of its pixels are infinite or not a number; replace those first.")
    least, most = values.min(), values.max()
    if least < 0:
        span = most - least
        values = (values - least) / span if span else np.zeros_like(values)
    elif most <= 1:
        pass
    else:
        values = values / next((scale for scale in FULL_SCALES if most <= scale), most)
    return np.rint(values * 255).astype(np.uint8)


def opaque(image, paper="white"):
    """A decoded image as RGB, with what is transparent in the colour of the paper."""
    from PIL import Image

    if image.mode in ("LA", "RGBA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, paper), image)
    return image.convert("RGB")


def register_heif():
    """Let Pillow read the photographs of iPhones, where the package pillow-heif is installed."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def why_not(path):
    """Why a file is no readable picture, and what to do, in a few words."""
    if not os.path.isfile(path):
        return "there is no such file: check the path"
    with open(path, "rb") as file:
        start = file.read(12)
    if not start:
        return "the file is empty: copy it again"
    if start[4:8] == b"ftyp":  # HEIC, and AVIF where Pillow was built without
        return "HEIC or AVIF: save it as JPEG, or `pip install pillow-heif`"
    return "damaged, or not a picture: open it in a picture viewer and save it anew as PNG or JPEG"
