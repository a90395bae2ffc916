"""Files that are either whole or not there, and their identity.

Everything is written beside its final place, flushed to disk and renamed, so that a kill, a full disk or a second
reader never meets half a file. Imported everywhere.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mtdistill.errors import MtdistillError

# What a system refuses wherever it happens, through no fault of ours: a full or broken disk, missing permissions.
_REFUSALS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE,
)  # fmt: skip
# As `tempfile` names them for the functions below.
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.(?P<kind>part|old)")


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file under its final name only once it is complete; text is UTF-8. Missing folders are made."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.chmod(0o644)  # mkstemp makes files that nobody else can read
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling folder that takes the place of ``path`` when the block ends without an error.

    What stood there before stays until then, see `replace_folder`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        yield fresh
        fresh.chmod(0o755)  # mkdtemp makes folders that nobody else can open, and safetensors such files
        for file in fresh.rglob("*"):
            if file.is_file():
                file.chmod(0o644)
                _flush(file)
        replace_folder(path, fresh)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def replace_folder(path: Path, fresh: Path) -> None:
    """Put a whole folder on the same disk in the place of another, or of nothing.

    What stood there is put back if the exchange fails. No system call exchanges two folders everywhere, so a kill between
    its two renames leaves the old folder as ``.<name>.<random>.old``, from where `clear_leftovers` takes it back.
    """
    old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
    try:
        if path.exists():
            path.replace(old)
        fresh.replace(path)
    except BaseException:
        if old.exists():
            old.replace(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def scratch_folder(parent: Path, name: str = "scratch") -> Iterator[Path]:
    """A folder for what is needed only inside the block; a kill leaves it as a leftover of this name.

    `tempfile.TemporaryDirectory` calls itself without end where its parent cannot be written any more (Python 3.11); this
    leaves the folder there, under a name that `clear_leftovers` knows.
    """
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=f".{name}.", suffix=".part"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def one_at_a_time(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Nobody else makes this file or folder while the block lasts; the lock ends with its process, however it ends.

    Args:
        path: what is made; the lock lies beside it.
        waiting: called once where another process is at it, which is then waited for.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def clear_leftovers(folder: Path, name: str | None = None) -> None:
    """Finish what a kill interrupted in a folder: remove halves, and put back what was about to be replaced.

    Args:
        folder: nobody else writes into it; what lies deeper is left alone. May be missing.
        name: only of this file or folder in it, which nobody else writes; None: of all.
    """
    for left in sorted(folder.glob(".*")):
        named = _LEFTOVER.fullmatch(left.name)
        if named is None or name not in (None, named["name"]):
            continue
        whole = folder / named["name"]
        if named["kind"] == "old" and not whole.exists():
            left.replace(whole)
        elif left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def refusal_of(error: Exception) -> str | None:
    """The words in which the system refused to write or read; None where an error is about something else.

    safetensors, tokenizers and torch raise kinds of their own, which have these words in their text. An error of ours has
    been worded already, and is none.
    """
    if isinstance(error, MtdistillError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno in _REFUSALS else None
    return next((words for words in map(os.strerror, _REFUSALS) if words in str(error)), None)


def absolute(path: Path) -> Path:
    """From the root, without ``..``, so that the folders above it are its parents; symbolic links stay."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow them


def checksums_of(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Hexadecimal SHA-256 of files in a folder, by their path in it."""
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(files)}


def changed_files(folder: Path, checksums: Mapping[str, object]) -> list[str]:
    """Names of files that are missing, outside of the folder, or of other content than their checksum says.

    Args:
        folder: where they lie.
        checksums: as `checksums_of` makes them, but perhaps by a stranger.
    """
    return [name for name, checksum in checksums.items() if not _is_unchanged(folder, name, checksum)]


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_unchanged(folder: Path, name: str, checksum: object) -> bool:
    path = (folder / name).resolve()
    # Only what is inside: a record is not asked to have other files of this machine read.
    return path.is_relative_to(folder.resolve()) and path.is_file() and sha256_of(path) == checksum


def _flush(file: Path) -> None:
    with file.open("rb+") as stream:  # open for writing, without which Windows refuses to flush
        os.fsync(stream.fileno())
