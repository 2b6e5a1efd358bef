"""The models one can have by name: the one that ships, and the weights that the paper's authors published.

Published files are fetched when first asked for and kept in the folder ``MIXER_WEIGHTS``, by default ``weights`` in the
data folder (see ``data``). One that has not come whole stays beside its place as ``.part``, and the next download goes
on from there; the file itself appears only when it is whole and checked.
"""

import contextlib
import os
import zipfile

from mixer_utils._file_kinds import KINDS, kind_of
from mixer_utils._files import (
    Broken,
    CheckpointError,
    Unreachable,
    at_home,
    checksum,
    data_folder,
    download,
    one_line,
    reason_of,
    why_no_download,
    write_atomically,
)
from mixer_utils.checkpoints import PRETRAINED, load_checkpoint
from mixer_utils.official import load_official_npz

WeightsUnreachable = Unreachable  # what notebook 09 waits for

# From https://github.com/google-research/vision_transformer; all are for images of 224 x 224 pixels.
ADDRESS = "https://storage.googleapis.com/mixer_models/"
PUBLISHED = {  # (name, weights): file, its size in MiB as listed there, its SHA-256; None is not known
    ("B/16", "imagenet1k"): ("imagenet1k/Mixer-B_16.npz", 228.47, None),
    ("L/16", "imagenet1k"): ("imagenet1k/Mixer-L_16.npz", 794.29, None),
    ("B/16", "imagenet21k"): ("imagenet21k/Mixer-B_16.npz", 289.61, None),
    ("L/16", "imagenet21k"): ("imagenet21k/Mixer-L_16.npz", 875.78, None),
    ("B/16", "sam"): ("sam/Mixer-B_16.npz", None, None),
    ("B/32", "sam"): ("sam/Mixer-B_32.npz", None, None),
    ("B/16", "gsam"): ("gsam/Mixer-B_16.npz", None, None),
    ("B/32", "gsam"): ("gsam/Mixer-B_32.npz", None, None),
    ("S/16", "gsam"): ("gsam/Mixer-S_16.npz", None, None),
    ("S/32", "gsam"): ("gsam/Mixer-S_32.npz", None, None),
    ("S/8", "gsam"): ("gsam/Mixer-S_8.npz", None, None),
}


def load_pretrained(name, weights=None):
    """A trained MlpMixer, on the CPU and in eval mode.

    ``load_pretrained("mnist")`` ships with the package, logits (B, 10); feed it with ``data.normalize(images)``.
    "mnist-14x14" does, too: less accurate, with 14 x 14 patches that make pictures of its mixing weights. The same from
    other seeds are "mnist-14x14-seed-1" and "mnist-14x14-seed-2", and of other pictures "fashion-mnist-14x14".

    ``load_pretrained("B/16", "imagenet1k")`` is one of the paper's (``PUBLISHED`` lists them all), for RGB images
    (B, 3, 224, 224) as (x - 127.5) / 127.5: logits (B, 1000), or (B, 21843) for "imagenet21k". "sam" and "gsam" were
    trained on ImageNet with these optimizers. The file is downloaded once, with a bar (``MIXER_PROGRESS=0``: none) and
    unless ``MIXER_DOWNLOAD=0``, and its size and SHA-256 are checked. Where ``PUBLISHED`` knows no SHA-256, the first
    whole file's is kept beside it, as ``.sha256``, and checked from then on.

    Raises ValueError for a model that there is not; Unreachable where it is neither here nor to be had, and
    CheckpointError for a file that is damaged or cannot be written.
    """
    if weights is None and name in PRETRAINED:
        return load_checkpoint(PRETRAINED[name])
    if (name, weights) not in PUBLISHED:
        asked = repr(name) if weights is None else f"{name!r} with {weights!r}"
        choices = [repr(shipped) for shipped in PRETRAINED]
        for kind in dict.fromkeys(kind for _, kind in PUBLISHED):
            choices.append(f"{', '.join(repr(n) for n, k in PUBLISHED if k == kind)} with {kind!r}")
        raise ValueError(f"There is no pretrained model {asked}: choose {'; '.join(choices)}.")
    return load_official_npz(published_file(name, weights), 224)


def published_file(name, weights):
    """The path of a file of ``PUBLISHED``, downloaded where it is not there, and checked. Raises CheckpointError."""
    file, mebibytes, sha256 = PUBLISHED[name, weights]
    path = at_home(os.environ.get("MIXER_WEIGHTS") or data_folder() / "weights") / file
    noted = path.with_name(path.name + ".sha256")
    if not path.is_file():
        fetch(ADDRESS + file, path, mebibytes, sha256)
        noted.unlink(missing_ok=True)  # of a file that was here before
    if sha256 is None and noted.is_file():
        sha256 = noted.read_text(errors="replace").partition(" ")[0]
    problem, proven = damage(path, mebibytes, sha256)
    if proven:
        raise CheckpointError(f"{path} is damaged ({problem}): delete it and run again to fetch it anew.")
    if problem:
        raise CheckpointError(
            f"{path} is not the published file ({problem}): move it away and run again, which fetches that."
        )
    if sha256 is None:
        with contextlib.suppress(CheckpointError):  # in a folder that others look after, a file is used as it is
            write_atomically(noted, f"{checksum(path, 'sha256')}  {path.name}\n".encode())
    return path


def fetch(address, path, mebibytes, sha256):
    """Bring ``address`` to ``path``, whole and checked. Raises Unreachable, or CheckpointError."""
    part = path.with_name(path.name + ".part")
    try:
        if reason := why_no_download():
            raise Broken(reason)
        path.parent.mkdir(parents=True, exist_ok=True)
        download(address, part)
    except Broken as error:
        reason = str(error)
        raise Unreachable(
            reason,
            f"{path.name} is not in {path.parent} and could not be downloaded ({reason}): connect to the internet and "
            f"run again, which goes on where a download was cut, or fetch {address} elsewhere and put it there.",
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"Cannot write {part} ({reason_of(error)}): free some space, or set MIXER_DATA to another folder."
        ) from error
    problem, _ = damage(part, mebibytes, sha256)
    if problem:
        part.unlink()
        raise CheckpointError(f"{path.name} came damaged from {address} ({problem}): run again later.")
    os.replace(part, path)


def damage(path, mebibytes, sha256):
    """What is wrong with a file, in a few words, and whether a checksum proves that; ("", False) if nothing is."""
    size = path.stat().st_size
    kind = kind_of(path)
    if kind not in ("npz", None):  # None: its first bytes may be what is damaged
        return f"it is {KINDS[kind].what}", False
    if mebibytes is not None and abs(size / 2**20 - mebibytes) > 0.01:  # sizes are listed to two places
        return f"{size:,} bytes, expected {mebibytes} MiB", False
    if sha256 is not None:
        found = checksum(path, "sha256")
        return ("", False) if found == sha256 else (f"SHA-256 {found[:12]}…, expected {sha256[:12]}…", True)
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except Exception as error:  # zip files fail in ten ways
        return one_line(error), False
    return (f"the checksum of {wrong} in it is wrong", True) if wrong else ("", False)
