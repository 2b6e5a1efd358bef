"""What a file is, told by its first bytes: so that a sound file of another kind is not taken for a damaged one."""

import contextlib
import dataclasses
import zipfile

from mixer_utils._files import CheckpointError, one_line


@dataclasses.dataclass(frozen=True)
class Kind:
    """``what`` it is, with its article, and which function reads it, or what else to do."""

    what: str
    remedy: str


KINDS = {
    "empty": Kind("an empty file", "make or fetch it anew"),
    "safetensors": Kind("a safetensors file", "load_checkpoint reads this project's, load_timm timm's"),
    "npz": Kind("an .npz file", "load_official_npz reads the authors' weights from it, numpy.load any arrays"),
    "torch": Kind(
        "a file that torch.save wrote",
        "load_timm reads timm's weights from it; for a model of your own, build it and call "
        "model.load_state_dict(torch.load(path, weights_only=True))",
    ),
    "TorchScript": Kind("a TorchScript archive", "torch.jit.load reads it"),
    "pickle": Kind(
        "a pickle",
        "it could run any code and is not unpickled here; where you trust it, save its tensors with "
        "torch.save(model.state_dict(), path)",
    ),
    "npy": Kind("a single array of NumPy's (.npy)", "numpy.load reads it, and a model takes many of them"),
    "hdf5": Kind("an HDF5 file", "h5py or Keras reads it"),
    "zip": Kind("a zip archive", "unpack it and give the file in it"),
    "tar": Kind("a tar archive", "unpack it (tar -xf) and give the file in it"),
    "compressed": Kind("a compressed file", "unpack it and give the file in it"),
    "image": Kind("an image", "give a file of weights; `python -m mixer_utils predict` reads images"),
    "web page": Kind("a web page", "it was saved in the file's place: download the file itself"),
    "pointer": Kind("a pointer of Git LFS", "bring the file itself with `git lfs pull`"),
    "text": Kind("a text file", "give a file of weights"),
}
STARTS = {
    b"\x93NUMPY": "npy",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "torch",  # before release 1.6: a pickled magic number
    b"\x80\x02": "pickle",
    b"\x80\x03": "pickle",
    b"\x80\x04": "pickle",
    b"\x80\x05": "pickle",
    b"\x1f\x8b": "compressed",  # gzip
    b"BZh": "compressed",
    b"\xfd7zXZ\0": "compressed",
    b"\x28\xb5\x2f\xfd": "compressed",  # Zstandard
    b"7z\xbc\xaf\x27\x1c": "compressed",
    b"Rar!": "compressed",
    b"\x89PNG": "image",
    b"\xff\xd8\xff": "image",
    b"version https://git-lfs": "pointer",
}


def kind_of(path):
    """A name in ``KINDS``, or None for a file that is like none of them."""
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        return "empty"
    if start.startswith(b"PK"):
        return kind_of_zip(path, start)
    if start[257:262] == b"ustar":
        return "tar"
    for magic, kind in STARTS.items():
        if start.startswith(magic):
            return kind
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40:  # the header's length, then its JSON
        return "safetensors"
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        text = start[: error.start].decode("utf-8") if error.start > len(start) - 4 else "\0"  # a letter cut in two
    if any(not (character.isprintable() or character.isspace()) for character in text):
        return None
    return "web page" if text.lstrip().lower().startswith(("<!doctype html", "<html")) else "text"


def kind_of_zip(path, start):
    """What a zip archive is for. One that is cut off has lost its list of files, but begins with the first one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zip files fail in ten ways
        names = [start[30 : 30 + int.from_bytes(start[26:28], "little")].decode("utf-8", "replace")]
    if any(name.endswith("/constants.pkl") for name in names):
        return "TorchScript"
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    return "npz" if any(name.endswith(".npy") for name in names) else "zip"


def wrong_checksum(path):
    """The first file of a zip archive whose checksum is wrong, by its name: that proves damage. Else None."""
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:
        return archive.testzip()
    return None


@contextlib.contextmanager
def reading(path, kinds, if_missing, if_unreadable):
    """Turn whatever a file makes its reader raise into one CheckpointError, which says what the file is.

    ``kinds`` are the names in ``KINDS`` of what the reader is for. Only what a checksum proves is called damaged.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"There is no checkpoint {path}: {if_missing}, or check the path.")
        yield
    except CheckpointError:
        raise
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): allow it, or give another path.") from error
    except Exception as error:  # zip files alone fail in ten ways; what they say is kept
        found = kind_of(path)
        expected = " or ".join(KINDS[kind].what for kind in kinds)
        reason = one_line(error)
        if found is None:
            problem = f"is damaged, or not {expected} ({reason}): {if_unreadable}, or give another path"
        elif found not in kinds:
            problem = f"is {KINDS[found].what}, expected {expected}: {KINDS[found].remedy}"
        elif wrong := wrong_checksum(path):
            problem = f"is damaged (the checksum of {wrong} in it is wrong): delete it and {if_unreadable}"
        else:
            problem = f"is {KINDS[found].what}, but cannot be read ({reason}): {if_unreadable}, or give another path"
        raise CheckpointError(f"{path} {problem}.") from error
