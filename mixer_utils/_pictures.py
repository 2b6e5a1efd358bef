"""Picture files as people have them, decoded: upright, 8 bits a channel, transparency kept. All readers begin here."""

import contextlib
import os
import warnings

import numpy as np

from mixer_utils._files import DataError

# What a picture of deeper grey was counted in: the first of these that holds its brightest pixel. (A scanner of 12 bits
# writes 0 to 4095 into numbers of 16, and no file format says so in a way that Pillow tells.)
FULL_SCALES = (1, *(2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 31, 32)))
# Resizing leaves fractions a little above the brightest one there was: 1.02 is still a share, 260.3 of 255.
OVERSHOOT = 1.05
# What Pillow names beside pictures: tables, videos, and printed pages, for which it would start another program.
NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF", "WMF"}
# What makes a kind readable where it is not, by the ending of its files' names.
INSTALL = {".heic": "pip install pillow-heif", ".heif": "pip install pillow-heif", ".hif": "pip install pillow-heif",
           ".avif": "pip install -U pillow"}  # fmt: skip
# What HEIC and AVIF say of themselves in bytes 8 to 12; videos have other names there.
BRANDS = {b"heic": ".heic", b"heix": ".heic", b"mif1": ".heic", b"msf1": ".heic", b"avif": ".avif", b"avis": ".avif"}
# How a file begins that is often taken for a picture, and what it is. In lower case.
TAKEN_FOR_PICTURES = {
    b"%pdf": "it is a PDF: export its page as PNG",
    b"<svg": "it is an SVG drawing: export it as PNG",
    b"<?xml": "it is an SVG drawing, or other XML: export it as PNG",
    b"<!doctype": "it is a web page: download the picture itself",
    b"<html": "it is a web page: download the picture itself",
    b"version https://git-lfs": "Git LFS left a note in its place: `git lfs pull` brings the picture",
}


def decode(path):
    """A picture file as an image of Pillow's, of mode L, LA, RGB or RGBA: turned as its EXIF data say, 0 to 255.

    Of several frames it is the first one. Grey of 16 bits, of 32 or of floating-point numbers comes by its full scale
    (see ``eight_bits``). Raises DataError, in one sentence, for a file that is missing, damaged, too large or no
    picture.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large picture, odd EXIF data: both are read
            # Given the path, Pillow would map the file into memory, and scrambles a TIFF then that is to be turned.
            with open(path, "rb") as file:
                image = checked(file)
                image.load()
                with contextlib.suppress(Exception):  # in EXIF data that make no sense: the picture does
                    ImageOps.exif_transpose(image, in_place=True)
                return plain(image)
    except DataError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path} has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels: make the picture smaller, a side of 1,000 "
            "pixels is plenty."
        ) from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory: make the picture smaller.") from error
    except Exception as error:  # Pillow's are of many kinds, by format and by damage
        raise DataError(f"{path} cannot be read ({why_not(path)}).") from error


def checked(file):
    """An open file as Pillow's image, of a PNG once its checksums were seen: a flipped byte would else be a picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        register_heif()  # not for every picture: looking for a package that is not there takes as long as a small one
        image = Image.open(file)
    if image.format == "PNG":
        image.verify()  # leaves nothing that could be read on
        image = Image.open(file)
    return image


def plain(image):
    """An image of any of Pillow's modes in one of four: L, LA, RGB, RGBA."""
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.asarray(image)
        result = Image.fromarray(eight_bits(values))
        if "transparency" in image.info:  # the one grey that is transparent, in a PNG of 16 bits
            result.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
        return result
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"  # palettes, CMYK, YCbCr and LAB are colour
    if image.has_transparency_data:
        mode += "A"
    return image if image.mode == mode else image.convert(mode)


def eight_bits(values):
    """Numbers of any type and range as uint8, 0 to 255.

    Full scale is the smallest of 1, 255, 1023, 4095, 16383, 65535 … that holds the largest number; fractions may lie
    above it by a twentieth, and count as full. Where numbers are negative, the smallest becomes 0 and the largest 255.
    Raises DataError where some are not finite.
    """
    slack = OVERSHOOT if values.dtype.kind == "f" else 1
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError("some of its pixels are infinite or not a number; replace those first.")
    least, most = values.min(), values.max()
    if least < 0:
        span = most - least
        values = (values - least) / span if span else np.zeros_like(values)
    else:
        values = values / next((scale for scale in FULL_SCALES if most <= scale * slack), most)
    return np.rint(values.clip(0, 1) * 255).astype(np.uint8)


def opaque(image, paper="white"):
    """A decoded image as RGB, with what is transparent in the colour of the paper."""
    from PIL import Image

    if image.mode in ("LA", "RGBA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, paper), image)
    return image.convert("RGB")


def register_heif():
    """Let Pillow read the photographs of iPhones, where the package pillow-heif is installed."""
    from PIL import Image

    if "HEIF" in Image.OPEN:
        return
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def picture_endings():
    """How the names of files end that Pillow reads as pictures here: {".jpg", ".png", …}, in lower case."""
    from PIL import Image

    register_heif()
    return {ending for ending, kind in Image.registered_extensions().items() if kind not in NO_PICTURES}


def why_not(path):
    """Why a file is no readable picture, and what to do, in a few words."""
    if os.path.isdir(path):
        return "it is a folder: give the path of a picture"
    if not os.path.isfile(path):
        return "there is no such file: check the path"
    try:
        with open(path, "rb") as file:
            start = file.read(32).lower()
    except OSError as error:
        return f"{error.strerror or error}: get the right to read it, or a copy of it"
    if not start:
        return "the file is empty: copy it again"
    for beginning, reason in TAKEN_FOR_PICTURES.items():
        if start.startswith(beginning):
            return reason
    ending = BRANDS.get(start[8:12]) if start[4:8] == b"ftyp" else None
    if ending and ending not in picture_endings():
        return f"{ending[1:].upper()} is not read here: `{INSTALL[ending]}`, or save it as JPEG"
    return "damaged, or not a picture that Pillow reads: open it in a picture viewer and save it anew as PNG or JPEG"
