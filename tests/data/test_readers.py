import bz2
import gzip
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from mtdistill.data.cleaning import clean
from mtdistill.data.readers import input_files, read_pairs
from mtdistill.errors import DataError
from mtdistill.messages import set_language

PAIRS = [("你好", "hello"), ("再见", "bye")]
TSV = "你好\thello\n再见\tbye\n"
JSONL = '{"zh": "你好", "en": "hello"}\n{"zh": "再见", "en": "bye"}\n'
TMX = "<tmx><body>{}</body></tmx>".format(
    "".join(
        f'<tu><tuv xml:lang="zh"><seg>{zh}</seg></tuv><tuv xml:lang="en"><seg>{en}</seg></tuv></tu>' for zh, en in PAIRS
    )
)
CONTENTS = {"tsv": TSV, "jsonl": JSONL, "tmx": TMX}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


def written(path: Path, content: bytes | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def pairs_of(*paths: str | Path, languages: tuple[str, str] = ("zh", "en")) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in read_pairs([str(path) for path in paths], *languages)]


def error_of(*paths: str | Path, languages: tuple[str, str] = ("zh", "en")) -> str:
    with pytest.raises(DataError) as caught:
        pairs_of(*paths, languages=languages)
    return str(caught.value)


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("kind", CONTENTS)
def test_every_format_in_every_packing(tmp_path: Path, kind: str, packed: str) -> None:
    path = written(tmp_path / f"a.{kind}{packed}".upper(), PACKERS[packed](CONTENTS[kind].encode()))
    assert pairs_of(path) == PAIRS
    assert pairs_of(path, languages=("en", "zh"))[0] == (("你好", "hello") if kind == "tsv" else ("hello", "你好"))


@pytest.mark.parametrize("packed", PACKERS)
def test_aligned_lines_in_every_packing(tmp_path: Path, packed: str) -> None:
    chinese = written(tmp_path / f"a.zh{packed}", PACKERS[packed]("你好\n再见\n".encode()))
    english = written(tmp_path / "a.en", "hello\r\nbye")
    for given in ([chinese], [english], [chinese, english], [english, chinese], [tmp_path]):
        assert pairs_of(*given) == PAIRS
        assert input_files([str(path) for path in given], "zh", "en") == [Path(chinese), Path(english)]
    assert pairs_of(tmp_path, languages=("en", "zh"))[0] == ("hello", "你好")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("source\ttarget\n你\tyou\n", [("你", "you")]),
        ("Target\tid\tSOURCE\nyou\t7\t你\n", [("你", "you")]),
        ("en\tzh\nyou\t你\n", [("你", "you")]),
        ("\ufeffen-US\tzh_CN\tscore\r\nyou\t你\t0.5\r\n", [("你", "you")]),
        ('"他\t"he said\n"我"\t""I""\n', [('"他', '"he said'), ('"我"', '""I""')]),
        ("一\tone\n\n \n二\ttwo\n\n", [("一", "one"), ("二", "two")]),
        ("\tone\n二\t\n\t\n", [("", "one"), ("二", ""), ("", "")]),
        ("一\u2028\tone\x85\n", [("一\u2028", "one\x85")]),
        ("一\rtwo\tone\n", [("一 two", "one")]),
        ("一\tone", [("一", "one")]),
        ("source\tone\n", [("source", "one")]),
        ("一\tone\nzh\ten\n", [("一", "one"), ("zh", "en")]),
    ],
    ids=["header", "header with more", "codes", "codes, BOM and CRLF", "quotes", "empty lines", "empty cells",
         "other line ends", "carriage return", "no last line end", "no header", "header further down"],
)  # fmt: skip
def test_tsv(tmp_path: Path, content: str, expected: list[tuple[str, str]]) -> None:
    assert pairs_of(written(tmp_path / "a.tsv", content)) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"source": "你", "target": "you"}', ("你", "you")),
        ('{"en": "you", "id": 3, "zh": "你"}', ("你", "you")),
        ('{"en-GB": "you", "zh_Hans": "你"}', ("你", "you")),
        ('{"source": "news", "en": "you", "zh": "你"}', ("你", "you")),
        ('{"id": "1", "translation": {"en": "you", "zh": "你", "fr": "toi"}}', ("你", "you")),
        ('{"zh": "a\\tb\\r\\nc", "en": "\\u4f60\\ud83d\\ude00"}', ("a b c", "你😀")),
        ('{"zh": "\\ud800", "en": "you"}', ("\ufffd", "you")),
        ('\n{"zh": "", "en": "you"}\n \n', ("", "you")),
    ],
    ids=["source and target", "codes", "base languages", "source alone", "translation", "escapes", "lone surrogate",
         "empty lines"],
)  # fmt: skip
def test_jsonl(tmp_path: Path, row: str, expected: tuple[str, str]) -> None:
    assert pairs_of(written(tmp_path / "a.jsonl", row)) == [expected]


def test_what_a_reader_gives_is_fit_for_cleaning(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.jsonl", '{"zh": "你好\\n吗", "en": "how are\\tyou"}\n{"zh": "\\udfff好", "en": "good"}\n'
    )
    kept, report = clean(read_pairs([path], "zh", "en"), "zh", "en")
    assert [tuple(pair) for pair in kept] == [("你好 吗", "how are you")]
    assert report.dropped == {"encoding_damage": 1}


def test_a_folder_gives_what_is_inside_in_the_order_of_the_paths(tmp_path: Path) -> None:
    b = written(tmp_path / "b.tsv", "b\tb\n")
    aligned = [written(tmp_path / "a" / name, "a\n") for name in ("x.zh_CN", "x.en")]
    c = written(tmp_path / "c" / "d" / "c.jsonl.gz", gzip.compress(JSONL.encode()))
    for other in ("README.md", "c/notes.txt", "x.fr", ".git/a.tsv", "a/.hidden.tsv", "c/.b.tsv.x.part"):
        written(tmp_path / other, "not ours")
    (tmp_path / "folder.tsv").mkdir()
    (tmp_path / "broken.tsv").symlink_to(tmp_path / "nowhere")
    assert [str(path) for path in input_files([str(tmp_path)], "zh", "en")] == [*aligned, b, c]
    assert pairs_of(tmp_path) == [("a", "a"), ("b", "b"), *PAIRS]


def test_a_hidden_folder_is_read_when_it_is_named(tmp_path: Path) -> None:
    written(tmp_path / ".corpus" / "a.tsv", TSV)
    assert pairs_of(tmp_path / ".corpus") == PAIRS


def test_a_file_named_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "a.tsv", TSV)
    assert pairs_of(path, "a.tsv", tmp_path, path) == PAIRS


def test_several_paths_are_read_in_the_order_given(tmp_path: Path) -> None:
    paths = [written(tmp_path / name, content) for name, content in (("b.tsv", "b\tb\n"), ("a.tsv", "a\ta\n"))]
    assert pairs_of(*paths) == [("b", "b"), ("a", "a")]


@pytest.mark.parametrize(
    ("chinese", "english", "counts"),
    [("a\nb\nc\n", "x\n", (3, 1)), ("a\n", "x\ny\nz", (1, 3)), ("a\n", "x\n\n", (1, 2))],
)
def test_aligned_files_of_different_lengths(
    tmp_path: Path, chinese: str, english: str, counts: tuple[int, int]
) -> None:
    written(tmp_path / "a.zh", chinese)
    assert f"got {counts[0]} lines in a.zh and {counts[1]} in a.en" in error_of(written(tmp_path / "a.en", english))


@pytest.mark.parametrize(
    ("names", "languages", "got"),
    [
        (["a.zh"], ("zh", "en"), "got no file for the language en, accepted one a.en"),
        (["a.zh", "b.en"], ("zh", "en"), "got no file for the language en, accepted one a.en"),
        (["a.zh", "a.zh.gz", "a.en"], ("zh", "en"), "got a.zh, a.zh.gz for the language zh"),
        (["a.zh_CN", "a.zh_TW", "a.en"], ("zh", "en"), "got a.zh_CN, a.zh_TW for the language zh"),
    ],
    ids=["no partner", "other name", "packed twice", "two variants"],
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_aligned_files_that_do_not_pair_up(
    tmp_path: Path, names: list[str], languages: tuple[str, str], got: str, as_folder: bool
) -> None:
    paths = [written(tmp_path / name, "a\n") for name in names]
    assert got in error_of(tmp_path if as_folder else paths[0], languages=languages)


def test_a_folder_is_no_partner_of_an_aligned_file(tmp_path: Path) -> None:
    (tmp_path / "a.en").mkdir()
    assert "got no file for the language en" in error_of(written(tmp_path / "a.zh", "a\n"))


@pytest.mark.parametrize("languages", [("zh-CN", "en"), ("zh-CN", "zh-TW")])
def test_an_exact_language_code_chooses_among_variants(tmp_path: Path, languages: tuple[str, str]) -> None:
    for name in ("zh_CN", "zh_TW", "en"):
        written(tmp_path / f"a.{name}", f"{name.replace('_', '-')}\n")
    assert pairs_of(tmp_path, languages=languages) == [languages]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.tsv", "一\tone\n二\ttwo\t2\n", "a.tsv, line 2: got 3 columns, accepted 2"),
        ("a.tsv", "一,one\n", "a.tsv, line 1: got 1 column, accepted 2"),
        ("a.tsv", "zh\ten\tid\n一\tone\n", "a.tsv, line 2: got 2 columns, accepted 3"),
        ("a.tsv", "12\t你\t13\tyou\n", "a.tsv, line 1: got 4 columns, accepted 2"),
        ("a.jsonl", '{"zh": "一"}\n', 'a.jsonl, line 1: got {"zh": "一"}, accepted one JSON object'),
        ("a.jsonl", JSONL + '{"zh": null, "en": "x"}\n', "a.jsonl, line 3: got {"),
        ("a.jsonl", '{"zh": ["一"], "en": ["x"]}\n', "a.jsonl, line 1: got {"),
        ("a.jsonl", '{"translation": ["一", "x"]}\n', "a.jsonl, line 1: got {"),
        ("a.jsonl", '[{"zh": "一", "en": "x"}]\n', "a.jsonl, line 1: got [{"),
        ("a.jsonl", '"zh en"\n', 'a.jsonl, line 1: got "zh en"'),
        ("a.jsonl", "{zh: 1}\n", "a.jsonl, line 1: got {zh: 1} (Expecting property name"),
        ("a.jsonl", "[" * 100_000, "a.jsonl, line 1: got [[["),
        ("a.jsonl", '{"zh": ' + "9" * 5000 + "}", "a.jsonl, line 1: got {"),
        ("a.tsv", "你好\thello\n".encode("gbk"), "a.tsv, line 1: got bytes that are not UTF-8"),
        ("a.zh", b"", "a.zh: got an empty file"),
        ("a.tsv", "", "a.tsv: got an empty file"),
        ("a.tsv", "\n\n", "a.tsv: got an empty file"),
        ("a.tsv", "source\ttarget\n", "a.tsv: got an empty file"),
        # Bytes become names of tests, which all processes that run them have to agree on: no time of day in them.
        ("a.tsv.gz", gzip.compress(b"", mtime=0), "a.tsv.gz: got an empty file"),
        ("a.tmx", "", "a.tmx: got an empty file"),
        ("a.csv", "一,one\n", "a.csv: got a file name of no known format, accepted .tsv, .jsonl, .tmx, .zh + .en"),
        ("a.fr", "un\n", "a.fr: got a file name of no known format"),
        ("a", "一\tone\n", "a: got a file name of no known format"),
        ("a.gz", gzip.compress(TSV.encode(), mtime=0), "a.gz: got a file name of no known format"),
    ],
)  # fmt: skip
def test_an_unusable_file(tmp_path: Path, name: str, content: bytes | str, expected: str) -> None:
    written(tmp_path / "a.en", "x\n")
    message = error_of(written(tmp_path / name, content))
    assert message.startswith(f"could not read {tmp_path}")
    assert expected in message
    assert len(message) < 500 + len(str(tmp_path))


def test_an_empty_file_in_a_folder_is_not_passed_over(tmp_path: Path) -> None:
    written(tmp_path / "a.tsv", TSV)
    written(tmp_path / "b.tsv", "")
    assert "b.tsv: got an empty file" in error_of(tmp_path)


def test_a_folder_without_supported_files(tmp_path: Path) -> None:
    written(tmp_path / "a.txt", TSV)
    assert f"could not read {tmp_path}: got a folder without supported files, accepted .tsv" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "got"), [("nowhere.tsv", "no such file or folder"), ("x" * 5000 + ".tsv", "'File name too long' from")]
)
def test_an_unusable_path_is_an_error_before_anything_is_read(tmp_path: Path, name: str, got: str) -> None:
    good = written(tmp_path / "a.tsv", TSV)
    with pytest.raises(DataError, match=got):
        read_pairs([good, str(tmp_path / name)], "zh", "en")


def test_messages_are_chinese_for_chinese_users(tmp_path: Path) -> None:
    set_language("zh")
    assert "a.tsv 第 1 行：有 1 列，应为 2 列" in error_of(written(tmp_path / "a.tsv", "一\n"))


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "aligned"])
def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path: Path, kind: str) -> None:
    if kind == "aligned":
        path = written(tmp_path / "a.zh", "你好\n" * 20_000)
        written(tmp_path / "a.en", "hello\n" * 20_000)
    else:
        path = written(tmp_path / f"a.{kind}", CONTENTS[kind] * 10_000)
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_pairs([path], "zh", "en"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 400_000  # bytes; measured: 100,000 for buffers. 20,000 pairs in a list take 2,500,000


def test_keys_that_are_never_the_same_are_not_kept_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for line in range(20):
            keys = "".join(f', "{line}-{key}": 0' for key in range(4_000))
            stream.write(f'{{"source": "a", "target": "b"{keys}}}\n')
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_pairs([str(path)], "zh", "en")) == 20
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**21  # measured: 1.0 MB; 5.9 MB where all are remembered
