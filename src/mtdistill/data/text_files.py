"""Text files as people have them: plain or compressed, with or without a byte order mark, whole or damaged.

Everything is streamed: memory holds one line of at most `MAX_LINE_BYTES`, also for a file that unpacks to terabytes.
Knows nothing of sentence pairs. Imported by cli, distillation, data.corpora, data.readers and data.tmx.
"""

import bz2
import gzip
import io
import lzma
import shlex
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from mtdistill.errors import DataError
from mtdistill.messages import tr

# Far beyond any sentence pair. A longer line is another kind of file (minified JSON, a binary, a compression bomb).
MAX_LINE_BYTES = 2**20
# zstd packs up to 32,745 bytes into one (measured, 1 GB of one letter), xz 6,900, so that one step unpacks at most 32 MiB.
_STEP_BYTES = 1024
# An xz file says how much memory unpacking takes, up to 4 GiB; xz -9 asks for 65 MiB.
_XZ_MEMORY_BYTES = 2**28
_BUFFER_BYTES = 2**16


def plain_name(path: Path) -> str:
    """The file name without the suffix of a compression.

    >>> plain_name(Path("a/train.zh.gz")), plain_name(Path("train.zh"))
    ('train.zh', 'train.zh')
    """
    return path.stem if path.suffix.lower() in _OPENERS else path.name


def file_error(path: Path, line: int | None = None, *, en: str, zh: str) -> DataError:
    """The error for a file, and a line in it counted from 1, that cannot be used."""
    where_en, where_zh = (str(path), str(path)) if line is None else (f"{path}, line {line}", f"{path} 第 {line} 行")
    return DataError(tr(en=f"could not read {where_en}: {en}", zh=f"无法读取 {where_zh}：{zh}"))


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The unpacked bytes of a file, as a stream.

    Raises:
        DataError: the system refuses the file, or what was compressed is damaged or cut short; also while reading.
    """
    try:
        with _OPENERS.get(path.suffix.lower(), _open_plain)(path) as stream:
            yield stream
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno is None:  # how gzip and bz2 report content that is not theirs
            raise _damaged(path, error) from error
        raise system_error(path, error) from error


def system_error(path: Path, error: OSError) -> DataError:
    """The error for a path that the operating system does not give us."""
    if isinstance(error, FileNotFoundError):
        return file_error(
            path,
            en="got no such file or folder, accepted an existing one. Check the path.",
            zh="没有这个文件或文件夹。请检查路径。",
        )
    return file_error(
        path,
        en=f"got {error.strerror!r} from the system, accepted a file that can be read. Check its name and permissions.",
        zh=f"系统返回 {error.strerror!r}，需要可读取的文件。请检查文件名和权限。",
    )


def read_lines(path: Path) -> Iterator[str]:
    r"""The lines of a UTF-8 text file, without line ends (``\n`` or ``\r\n``, nothing else ends a line) and marks.

    Raises:
        DataError: see `opened`; or a line is not UTF-8, holds NUL bytes, or is longer than `MAX_LINE_BYTES`.
    """
    with opened(path) as stream:
        number, is_utf8 = 0, False
        while raw := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            yield _text(raw, path, number, is_utf8)
            is_utf8 = is_utf8 or not raw.isascii()


def _text(raw: bytes, path: Path, number: int, is_utf8: bool) -> str:
    """One line decoded; ``is_utf8`` says that characters beyond ASCII were read before it."""
    if b"\0" in raw or raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _wrong_encoding(path, number, "UTF-16", en="UTF-16 or binary data", zh=" UTF-16 编码的文本或二进制数据")
    if len(raw) > MAX_LINE_BYTES:
        raise file_error(
            path,
            number,
            en=f"got a line of more than {MAX_LINE_BYTES} bytes, accepted one sentence pair a line. "
            "Check that this is a text corpus, and break or delete the line.",
            zh=f"该行超过 {MAX_LINE_BYTES} 字节，应为每行一个句对。请确认这是文本语料，并拆开或删除该行。",
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = raw[error.start : error.start + 4].hex(" ")
        raise _wrong_encoding(
            path,
            number,
            "UTF-8" if is_utf8 else _likely_encoding(raw),
            en=f"bytes that are not UTF-8 ({shown})",
            zh=f"非 UTF-8 字节（{shown}）",
        ) from error
    # A mark inside a file is left over from joining files.
    return text.removesuffix("\n").removesuffix("\r").removeprefix("\ufeff")


def _likely_encoding(raw: bytes) -> str:
    try:
        raw.decode("gb18030")
    except UnicodeDecodeError:
        return "WINDOWS-1252"
    return "GB18030"


def _wrong_encoding(path: Path, number: int, encoding: str, *, en: str, zh: str) -> DataError:
    """The error for a line in another encoding; "UTF-8" stands for damaged bytes in a file that is UTF-8."""
    name = plain_name(path)
    option = "-c -f UTF-8" if encoding == "UTF-8" else f"-f {encoding}"
    # What has to be unpacked first will lie wherever that is done.
    before, after = shlex.quote(str(path) if name == path.name else name), shlex.quote("new" + Path(name).suffix)
    command = f"iconv {option} -t UTF-8 {before} > {after}"
    if encoding == "UTF-8":
        remedy_en, remedy_zh = "Drop the damaged bytes", "请去掉损坏的字节"
    else:
        remedy_en = f"Convert it, if {encoding} is what it is in"
        remedy_zh = f"如果它的编码是 {encoding}，请转换"
    if name != path.name:
        remedy_en, remedy_zh = f"Unpack it first. {remedy_en}", f"请先解压。{remedy_zh}"
    return file_error(
        path,
        number,
        en=f"got {en}, accepted UTF-8 text. {remedy_en}: {command}",
        zh=f"得到{zh}，应为 UTF-8 文本。{remedy_zh}：{command}",
    )


def _damaged(path: Path, error: Exception) -> DataError:
    return file_error(
        path,
        en=f"got damaged or incomplete compressed data ({error}), accepted a whole {path.suffix} file. "
        "Download or compress it again.",
        zh=f"压缩数据已损坏或不完整（{error}），需要完整的 {path.suffix} 文件。请重新下载或重新压缩。",
    )


def _open_plain(path: Path) -> BinaryIO:
    return path.open("rb")


def _open_gzip(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path))


def _open_bzip2(path: Path) -> BinaryIO:
    return cast(BinaryIO, bz2.open(path))


def _open_xz(path: Path) -> BinaryIO:
    return _unpacked(path, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES))


def _open_zstd(path: Path) -> BinaryIO:
    return _unpacked(path, lambda: zstandard.ZstdDecompressor().decompressobj())


def _unpacked(path: Path, start_frame: Callable[[], Any]) -> BinaryIO:
    return io.BufferedReader(_FrameStream(path.open("rb"), start_frame), _BUFFER_BYTES)


class _FrameStream(io.RawIOBase):
    """Unpacks all frames of a stream.

    The reader of zstandard itself ends without an error where a file is cut short, and that of lzma has no limit of
    memory.
    """

    def __init__(self, packed: BinaryIO, start_frame: Callable[[], Any]) -> None:
        self._packed, self._start_frame = packed, start_frame
        self._frame: Any = None
        self._packed_rest, self._unread = b"", memoryview(b"")
        self._is_inside_frame = False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._packed.close()
        super().close()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._unread:
            step = self._packed_rest or self._packed.read(_STEP_BYTES)
            if not step:
                if self._is_inside_frame:
                    raise EOFError("the last frame is cut short")
                return 0
            self._packed_rest = b""
            if not self._is_inside_frame:
                step = step.lstrip(b"\0")  # xz may pad with zeros behind a frame
                if not step:
                    continue
                self._frame = self._start_frame()
            self._unread = memoryview(self._frame.decompress(step))
            self._is_inside_frame = not self._frame.eof
            self._packed_rest = self._frame.unused_data
        size = min(len(buffer), len(self._unread))
        buffer[:size], self._unread = self._unread[:size], self._unread[size:]
        return size


_OPENERS: dict[str, Callable[[Path], BinaryIO]] = {
    ".gz": _open_gzip,
    ".bz2": _open_bzip2,
    ".xz": _open_xz,
    ".zst": _open_zstd,
}
COMPRESSIONS = tuple(_OPENERS)
