import bz2
import gzip
import lzma
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import zstandard

from mtdistill.data.text_files import MAX_LINE_BYTES, read_lines
from mtdistill.errors import DataError
from mtdistill.messages import set_language

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": partial(lzma.compress, preset=0),
    ".zst": zstandard.compress,
}
# Varied enough that no compressor packs it into one block.
TEXT = "".join(f"第 {i} 行 {i * i * 7919}\n" for i in range(20_000))


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_lines(path))
    return str(caught.value)


@pytest.mark.parametrize("suffix", PACKERS)
def test_lines_come_out_as_they_went_in(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"text{suffix}", PACKERS[suffix](TEXT.encode()))
    assert list(read_lines(path)) == TEXT.splitlines()


@pytest.mark.parametrize("suffix", [suffix for suffix in PACKERS if suffix])
def test_parts_packed_one_after_the_other_are_all_read(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"text{suffix}", PACKERS[suffix](TEXT.encode()) + PACKERS[suffix](b"end") * 2)
    assert list(read_lines(path)) == [*TEXT.splitlines(), "endend"]


def test_a_skippable_zstd_frame_is_passed_over(tmp_path: Path) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    path = written(tmp_path / "text.zst", zstandard.compress(b"a\n") + skippable + zstandard.compress(b"b\n"))
    assert list(read_lines(path)) == ["a", "b"]


@pytest.mark.parametrize("suffix", [suffix for suffix in PACKERS if suffix])
@pytest.mark.parametrize("damage", ["cut", "garbled", "foreign"])
def test_damaged_packing_is_an_error_and_not_a_shorter_text(tmp_path: Path, suffix: str, damage: str) -> None:
    packed = PACKERS[suffix](TEXT.encode())
    content = {
        "cut": packed[:-1000],
        "garbled": packed[:10] + b"\xff" * 500 + packed[510:],
        "foreign": b"a plain text\n",
    }[damage]
    message = error_of(written(tmp_path / f"text{suffix}", content))
    assert f"text{suffix}: got damaged or incomplete compressed data" in message


@pytest.mark.parametrize("suffix", [suffix for suffix in PACKERS if suffix])
def test_a_line_that_unpacks_to_much_more_than_the_file_does_not_fill_the_memory(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"bomb{suffix}", PACKERS[suffix](b"fine\n" + b"a" * 2**26))
    tracemalloc.start()
    try:
        message = error_of(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert f"line 2: got a line of more than {MAX_LINE_BYTES} bytes" in message
    assert peak < 2**26 * 0.9  # 64 MiB unpacked; zstd unpacks 32 MiB at once, and the rest far less


def test_the_longest_line_allowed_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "text", b"a" * (MAX_LINE_BYTES - 1) + b"\nb\n")
    assert [len(line) for line in read_lines(path)] == [MAX_LINE_BYTES - 1, 1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b" a\t \r\n b", [" a\t ", " b"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "b"]),
        ("a\u2028b\x85c\x0bd\x0ce\x1cf\rg\n".encode(), ["a\u2028b\x85c\x0bd\x0ce\x1cf\rg"]),
        (b"", []),
    ],
    ids=["no last line end", "CRLF", "empty line", "spaces", "byte order marks", "no line end but LF", "empty"],
)
def test_what_a_line_is(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    assert list(read_lines(written(tmp_path / "text", content))) == expected


@pytest.mark.parametrize(
    ("name", "content", "line", "command"),
    [
        ("a.tsv", "ok\n你好\n".encode("gb18030"), 2, "iconv -f GB18030 -t UTF-8 in/a.tsv > new.tsv"),
        ("my a.tsv", "你好\n".encode("gbk"), 1, "iconv -f GB18030 -t UTF-8 'in/my a.tsv' > new.tsv"),
        ("a.tsv", "hi\n".encode("utf-16"), 1, "iconv -f UTF-16 -t UTF-8 in/a.tsv > new.tsv"),
        # U+4F60 U+597D are four ASCII letters when read as bytes; the line end has the first zero.
        ("a.tsv", "你好\n".encode("utf-16-le"), 2, "iconv -f UTF-16 -t UTF-8 in/a.tsv > new.tsv"),
        ("a.tsv", "ok\n".encode("utf-16-be"), 1, "iconv -f UTF-16 -t UTF-8 in/a.tsv > new.tsv"),
        ("a.tsv", "你好吗\n".encode("utf-16"), 1, "iconv -f UTF-16 -t UTF-8 in/a.tsv > new.tsv"),
        ("a.tsv", "café\n".encode("latin-1"), 1, "iconv -f WINDOWS-1252 -t UTF-8 in/a.tsv > new.tsv"),
        ("a.tsv", "é\n".encode() + b"\xff\n", 2, "iconv -c -f UTF-8 -t UTF-8 in/a.tsv > new.tsv"),
        ("a.tsv", b"\x89PNG\r\n\x1a\n\0\0", 1, "iconv -f"),
        ("a.zh.gz", gzip.compress("你\n".encode("gbk"), mtime=0), 1, "iconv -f GB18030 -t UTF-8 a.zh > new.zh"),
    ],
)
def test_another_encoding_is_named_with_its_line_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, line: int, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    message = error_of(written(Path("in") / name, content))
    assert message.startswith(f"could not read {Path('in') / name}, line {line}: got ")
    assert "accepted UTF-8 text" in message
    assert command in message
    assert ("Unpack it first" in message) == name.endswith(".gz")


def test_a_file_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "got 'Permission denied' from the system" in error_of(tmp_path / "a.tsv")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert error_of(tmp_path / "a.tsv") == (
        f"could not read {tmp_path / 'a.tsv'}: got no such file or folder, accepted an existing one. Check the path."
    )


def test_messages_are_chinese_for_chinese_users(tmp_path: Path) -> None:
    set_language("zh")
    message = error_of(written(tmp_path / "a.tsv", "好\n".encode("gbk")))
    assert message.startswith(f"无法读取 {tmp_path / 'a.tsv'} 第 1 行：得到非 UTF-8 字节")


def test_an_xz_file_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    small = lzma.compress(b"a\n", preset=9)
    assert list(read_lines(written(tmp_path / "a.xz", small))) == ["a"]  # which asks for 65 MiB
    header = bytearray(lzma.compress(b"a\n", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}]))
    place = header.index(b"\x21\x01", 12)  # LZMA2, one byte of properties: the size of its dictionary
    header[place + 2] = 38  # 2 GiB
    block = header[12 : 12 + (header[12] + 1) * 4 - 4]
    header[12 + len(block) : 16 + len(block)] = zlib.crc32(block).to_bytes(4, "little")
    assert "Memory usage limit" in error_of(written(tmp_path / "b.xz", bytes(header)))


def test_zeros_behind_an_xz_stream_are_padding(tmp_path: Path) -> None:
    packed = lzma.compress(b"a\n")
    assert list(read_lines(written(tmp_path / "a.xz", packed + bytes(8) + packed + bytes(4)))) == ["a", "a"]


@pytest.mark.parametrize("suffix", [".xz", ".zst"])
def test_something_else_behind_the_last_stream_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}", PACKERS[suffix](b"a\n") + b"more text that is not packed")
    assert "damaged or incomplete compressed data" in error_of(path)
