"""Sentence pairs out of files and folders, as a stream in constant memory.

=================  ==================================================================================================
TSV (``.tsv``)     source, tab, target. Or a first line that names the columns (``source`` and ``target``, or language
                   codes; any order, further columns allowed). Quotes are text: there is no CSV quoting
JSONL (``.jsonl``) one object a line: ``{"source", "target"}``, ``{"zh", "en"}`` or ``{"translation": {"zh", "en"}}``
aligned lines      ``train.zh`` and ``train.en``; one of the two, both, or their folder may be given
TMX (``.tmx``)     see data.tmx
=================  ==================================================================================================

Each plain or with ``.gz``, ``.bz2``, ``.xz`` or ``.zst`` behind its name. A file that cannot be read whole is an error
and never a shorter corpus. Imported by cli, data.own_sentences, data.prepared and data.splitting; imports
data.cleaning, data.languages, data.text_files and data.tmx.
"""

import json
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, zip_longest
from pathlib import Path, PurePath

from mtdistill.data.cleaning import Pair
from mtdistill.data.languages import find_columns, find_language, spelling
from mtdistill.data.text_files import COMPRESSIONS, file_error, plain_name, read_lines, system_error
from mtdistill.data.tmx import read_tmx
from mtdistill.errors import DataError
from mtdistill.messages import listed, tr

# Tabs and line ends inside a text (JSON, TMX) would be taken for columns, lines and encoding damage further on.
_BREAKS = re.compile(r"[\t\n\v\f\r]+")
_MAX_SHOWN = 80  # characters of a line in a message; enough to recognise it
_MAX_KEYS = 64  # of an object whose keys are remembered
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can write them, UTF-8 cannot


def read_pairs(paths: Sequence[str], source_lang: str, target_lang: str) -> Iterator[Pair]:
    """The pairs of all files, in the order of the paths; each file once, however often it is named.

    Args:
        paths: files, or folders (every supported file inside, at any depth, sorted by path; hidden ones are left out).
        source_lang: language code, compared with column names, JSON keys, suffixes and xml:lang: spelt the same, or
            of the same base language (``zh`` for ``zh-CN``).
        target_lang: language code of the translations.

    Returns:
        Pairs as they stand in the files; breaks inside a text become spaces.

    Raises:
        DataError: at once where a path is unusable (see `input_files`); while reading where a file is empty, damaged,
            not UTF-8, or a line has the wrong shape. Aligned files of different lengths are known at their end only.
    """
    return _pairs_of(_inputs(paths, source_lang, target_lang), source_lang, target_lang)


def input_files(paths: Sequence[str], source_lang: str, target_lang: str) -> list[Path]:
    """The files that `read_pairs` reads for these paths, partners of aligned files included.

    Raises:
        DataError: a path is missing, of no supported format or empty, a folder holds no supported file, or an
            aligned file has no partner, or several.
    """
    return [file for files in _inputs(paths, source_lang, target_lang) for file in files]


def _pairs_of(inputs: Iterable[tuple[Path, ...]], source_lang: str, target_lang: str) -> Iterator[Pair]:
    for files in inputs:
        if len(files) == 2:
            pairs = _read_aligned(*files)
        else:
            pairs = _READERS[_format(files[0])](files[0], source_lang, target_lang)
        is_empty = True
        for pair in pairs:
            is_empty = False
            yield Pair(*(_LONE_SURROGATE.sub("\ufffd", _BREAKS.sub(" ", text)) for text in pair))
        if is_empty:
            raise _empty(files[0])


def _inputs(paths: Sequence[str], source_lang: str, target_lang: str) -> list[tuple[Path, ...]]:
    """One tuple for each input: the file, or the source file and the target file of aligned lines."""
    inputs: dict[Path, tuple[Path, ...]] = {}
    for path in map(Path, paths):
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except OSError as error:
            raise system_error(path, error) from error
        for files in (_inputs_in if is_folder else _inputs_of)(path, source_lang, target_lang):
            inputs.setdefault(files[0].resolve(), files)
    for file in (file for files in inputs.values() for file in files):
        if file.stat().st_size == 0:
            raise _empty(file)
    return list(inputs.values())


def _inputs_of(file: Path, source_lang: str, target_lang: str) -> list[tuple[Path, ...]]:
    if _format(file) in _READERS:
        return [(file,)]
    if _side(file, source_lang, target_lang) is not None:
        partners = [path for path in file.parent.iterdir() if path.is_file() and _stem(path) == _stem(file)]
        return [_aligned(sorted(partners), source_lang, target_lang)]
    formats = _formats(source_lang, target_lang)
    raise file_error(
        file,
        en=f"got a file name of no known format, accepted {formats}. Convert or rename the file.",
        zh=f"无法从文件名识别格式，可用的有 {formats}。请转换文件或改名。",
    )


def _inputs_in(folder: Path, source_lang: str, target_lang: str) -> list[tuple[Path, ...]]:
    names = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    files = [
        names[name] for name in sorted(names, key=PurePath.as_posix) if not any(part[0] == "." for part in name.parts)
    ]
    found: dict[Path, tuple[Path, ...]] = {path: (path,) for path in files if _format(path) in _READERS}
    aligned: dict[Path, list[Path]] = {}
    for path in files:
        if path not in found and _side(path, source_lang, target_lang) is not None:
            aligned.setdefault(_stem(path), []).append(path)
    for partners in aligned.values():
        found[partners[0]] = _aligned(partners, source_lang, target_lang)
    if not found:
        formats = _formats(source_lang, target_lang)
        raise file_error(
            folder,
            en=f"got a folder without supported files, accepted {formats} in it. Check the path.",
            zh=f"文件夹中没有支持的文件，可用的有 {formats}。请检查路径。",
        )
    return [found[path] for path in files if path in found]


def _aligned(partners: Sequence[Path], source_lang: str, target_lang: str) -> tuple[Path, ...]:
    """The source file and the target file among files that differ in their last suffix only."""
    chosen: list[Path] = []
    for side, lang in enumerate((source_lang, target_lang)):
        files = [path for path in partners if _side(path, source_lang, target_lang) == side]
        files = [path for path in files if spelling(_format(path)) == spelling(lang)] or files
        if len(files) != 1:
            names = ", ".join(path.name for path in files) or tr(en="no file", zh="没有文件")
            raise file_error(
                partners[0],
                en=f"got {names} for the language {lang}, accepted one {_stem(partners[0]).name}.{lang} beside it. "
                "Add the missing file, or move the surplus ones away.",
                zh=f"语言 {lang} 对应：{names}；应有且仅有一个 {_stem(partners[0]).name}.{lang} 与之同目录。"
                "请补上缺少的文件，或移走多余的文件。",
            )
        chosen += files
    return tuple(chosen)


def _format(path: Path) -> str:
    """The last suffix before that of a compression: a format, or the language of aligned lines."""
    return Path(plain_name(path)).suffix.lower().removeprefix(".")


def _stem(path: Path) -> Path:
    """What the two files of aligned lines have in common."""
    return path.parent / Path(plain_name(path)).stem


def _side(path: Path, source_lang: str, target_lang: str) -> int | None:
    """0 for a file of aligned source lines, 1 for target lines, by its suffix."""
    is_source = find_language([_format(path)], source_lang, target_lang) is not None
    is_target = find_language([_format(path)], target_lang, source_lang) is not None
    return None if is_source == is_target else int(is_target)


def _formats(source_lang: str, target_lang: str) -> str:
    names = [*(f".{name}" for name in _READERS), f".{source_lang} + .{target_lang}"]
    packed = listed(COMPRESSIONS)
    return listed(names) + tr(en=f" (also with {packed})", zh=f"（均可再加 {packed}）")


def _read_tsv(path: Path, source_lang: str, target_lang: str) -> Iterator[Pair]:
    source, target, width = 0, 1, 2
    is_first = True
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip(" "):
            continue
        cells = line.split("\t")
        names = find_columns(cells, source_lang, target_lang) if is_first else None
        is_first = False
        if names:
            source, target, width = cells.index(names[0]), cells.index(names[1]), len(cells)
            continue
        if len(cells) != width:
            raise file_error(
                path,
                number,
                en=f"got {len(cells)} column{'s' * (len(cells) != 1)}, accepted {width}: source and target with a tab "
                f"between them, or what a first line names (source, target; {source_lang}, {target_lang}). "
                "Correct the line.",
                zh=f"有 {len(cells)} 列，应为 {width} 列：原文和译文之间一个制表符，或首行列名"
                f"（source、target；{source_lang}、{target_lang}）规定的各列。请改正该行。",
            )
        yield Pair(cells[source], cells[target])


def _read_jsonl(path: Path, source_lang: str, target_lang: str) -> Iterator[Pair]:
    @lru_cache(maxsize=256)
    def remembered(keys: tuple[str, ...]) -> tuple[str, str] | None:
        return find_columns(keys, source_lang, target_lang)

    def find_keys(keys: tuple[str, ...]) -> tuple[str, str] | None:
        is_usual = len(keys) <= _MAX_KEYS and all(len(key) <= _MAX_SHOWN for key in keys)
        return remembered(keys) if is_usual else find_columns(keys, source_lang, target_lang)

    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _wrong_row(path, number, line, source_lang, target_lang, f" ({error})") from error
        for texts in (row, row.get("translation")) if isinstance(row, dict) else ():
            if not isinstance(texts, dict):
                continue
            keys = find_keys(tuple(texts))
            if keys and all(isinstance(texts[key], str) for key in keys):
                yield Pair(texts[keys[0]], texts[keys[1]])
                break
        else:
            raise _wrong_row(path, number, line, source_lang, target_lang)


def _wrong_row(path: Path, number: int, line: str, source_lang: str, target_lang: str, reason: str = "") -> DataError:
    got = (line if len(line) <= _MAX_SHOWN else line[: _MAX_SHOWN - 1] + "…") + reason
    accepted = f'{{"source": "...", "target": "..."}} | {{"{source_lang}": "...", "{target_lang}": "..."}}'
    return file_error(
        path,
        number,
        en=f"got {got}, accepted one JSON object: {accepted}, also under translation. Correct the line.",
        zh=f"得到 {got}，应为一个 JSON 对象：{accepted}，也可放在 translation 之下。请改正该行。",
    )


def _read_aligned(source_file: Path, target_file: Path) -> Iterator[Pair]:
    sources, targets = read_lines(source_file), read_lines(target_file)
    for number, (source, target) in enumerate(zip_longest(sources, targets), start=1):
        if source is None or target is None:
            shorter, longer = number - 1, number + sum(1 for _ in chain(sources, targets))
            counts = (shorter, longer) if source is None else (longer, shorter)
            raise file_error(
                source_file,
                en=f"got {counts[0]} lines in {source_file.name} and {counts[1]} in {target_file.name}, accepted as "
                "many in both, because line n translates line n. Find the missing line, or get both files anew.",
                zh=f"{source_file.name} 有 {counts[0]} 行，{target_file.name} 有 {counts[1]} 行，应当相同，"
                "因为两边逐行对应。请找出缺失的行，或重新获取两个文件。",
            )
        yield Pair(source, target)


def _empty(file: Path) -> DataError:
    return file_error(
        file,
        en="got an empty file, accepted one sentence pair or more. Check the file, or take it out.",
        zh="文件为空，至少应有一个句对。请检查该文件，或将其移除。",
    )


_READERS = {"tsv": _read_tsv, "jsonl": _read_jsonl, "tmx": read_tmx}
