"""Pseudo-targets: training text whose targets the teacher has translated.

Also called sequence-level knowledge distillation, forward translation, or distilled data (Kim & Rush 2016,
arXiv:1606.07947). Of the n best translations of a beam search those closest to the gold text are kept, by sentence
chrF2 (their "sequence-level interpolation"); where there is no gold text, the best of the search. What fails an output
check is left out. Added to the gold pairs as more training text, as Gordon & Duh 2019 (arXiv:1912.03334) do.

Imported by cli and distillation.pseudo_rows; imports config, data, decoding, output_checks, report, teacher,
distillation.candidates and distillation.materials.
"""

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import TypeAdapter

from mtdistill.config import RunConfig
from mtdistill.data.prepared import EvaluationSet
from mtdistill.data.text_files import read_lines
from mtdistill.decoding import CTranslate2Translator, Translation
from mtdistill.decoding.ctranslate2 import ComputeType
from mtdistill.decoding.translator import is_visible
from mtdistill.display import Display
from mtdistill.distillation.candidates import DEFAULT_SEARCH, Choice, Pair, Search, choose
from mtdistill.distillation.materials import prepare_materials
from mtdistill.errors import ConfigError, DataError
from mtdistill.files import write_atomically
from mtdistill.messages import listed, tr
from mtdistill.output_checks import check_translations
from mtdistill.report.wording import check_name
from mtdistill.teacher.state_cache import model_fingerprint
from mtdistill.text import normalise

CHUNK_SENTENCES = 1024  # what a kill may cost
T = TypeVar("T")


@dataclass(frozen=True)
class PseudoTargets:
    """What was written.

    Attributes:
        path: JSONL, a pair a line: source, target, rank (among the n best, 0 for the best) and chrf (sentence chrF2 to
            the gold text, null without one); the pairs of a source stand together, the closest to the gold text first.
        sources: distinct sentences that were translated.
        written: pairs in the file.
        dropped: sources without a translation that passes the checks, and translations that too many sources share, by check.
        same_as_gold: pairs whose target is a gold text, which cleaning drops again as duplicates.
        mean_chrf: of the pairs to their gold texts; NaN without any.
    """

    path: Path
    sources: int
    written: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    same_as_gold: int = 0
    mean_chrf: float = math.nan

    def __str__(self) -> str:
        dropped = _counted(self.dropped) or "0"
        gold = "–" if math.isnan(self.mean_chrf) else f"{self.mean_chrf:.1f}"
        return tr(
            en=f"{self.written} pairs of {self.sources} sentences in {self.path} (dropped: {dropped}); chrF2 to the gold "
            f"text {gold}, {self.same_as_gold} equal to it",
            zh=f"{self.sources} 个句子得到 {self.written} 个句对，写入 {self.path}（丢弃：{dropped}）；"
            f"与标准译文的 chrF2 为 {gold}，其中 {self.same_as_gold} 个与之相同",
        )


def make_pseudo_targets(
    config: RunConfig,
    path: Path,
    search: Search = DEFAULT_SEARCH,
    display: Display | None = None,
    *,
    sources: Sequence[str | Path] = (),
    precision: ComputeType = "float32",
) -> PseudoTargets:
    """Translate training text with the teacher, and write pairs to train on; goes on where an earlier call was stopped.

    Args:
        config: its teacher and its data; of the data, the sources of the training split are translated.
        path: of the JSONL file, for the setting ``data.extra``. Parts that are done lie beside it until it is whole.
        search: how the teacher translates.
        display: where progress goes; None: nowhere.
        sources: text files in the source language, a sentence a line, to be translated instead.
        precision: number format that the teacher computes in.

    Raises:
        ConfigError: the file is there already, or the search asks for more than it keeps.
        DataError: a file cannot be read, or no translation is fit to be written.
        TeacherError: the teacher is refused.
    """
    display = display or Display()
    _require_possible(path, search)
    materials = prepare_materials(config, display)
    teacher, data = materials.teacher, materials.data
    sentences = _monolingual(sources, data.source_lang) if sources else data.evaluation_set("train")
    translator = materials.teacher_translator(precision)
    return write_pseudo_targets(
        sentences, translator, data.target_lang, path, search, display, teacher=model_fingerprint(teacher.model)
    )


def write_pseudo_targets(
    sentences: EvaluationSet,
    translator: CTranslate2Translator,
    target_lang: str,
    path: Path,
    search: Search,
    display: Display,
    *,
    teacher: str = "",
) -> PseudoTargets:
    """The part of `make_pseudo_targets` that needs no settings.

    Args:
        sentences: sources; their gold texts may be empty lists.
        translator: the teacher.
        target_lang: language of its translations.
        path: as for `make_pseudo_targets`, and so are the rest.
        search: how the teacher translates.
        display: where progress goes.
        teacher: whatever tells teachers apart; parts of another one are not gone on with.

    Raises:
        DataError: no translation is fit to be written.
    """
    pairs = _drawn(sentences, search)
    parts = path.with_name(f".{path.name}.parts")
    text = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    _begin(parts, {**asdict(search), "teacher": teacher, "precision": translator.precision, "text": text})
    choices: list[Choice] = []
    with display.bar(tr(en="translating", zh="正在翻译"), len(pairs)) as bar:
        for first in range(0, len(pairs), CHUNK_SENTENCES):
            part = parts / f"{first:09}.jsonl"
            chunk = pairs[first : first + CHUNK_SENTENCES]
            found = read_stored(part, Choice)  # by an interrupted run; what is damaged is translated again
            if found is None or list(dict.fromkeys(each.source for each in found)) != [source for source, _ in chunk]:
                found = choose(chunk, translator, target_lang, search)
                write_atomically(part, _as_lines(asdict(each) for each in found))
            choices += found
            bar.advance_to(first + len(chunk))
    result = _write(choices, dict(pairs), target_lang, path)
    shutil.rmtree(parts, ignore_errors=True)
    return result


def _require_possible(path: Path, search: Search) -> None:
    if path.exists():
        raise ConfigError(
            tr(
                en=f"the pseudo-targets are there already: got {path}, accepted a new name. Delete the file, or choose "
                "another --to.",
                zh=f"伪目标文件已存在：{path}，应为新的名称。请删除该文件，或换一个 --to。",
            )
        )
    for name, value, limit_name, limit in (
        ("--n-best", search.n_best, "--beam", search.beam_size),
        ("--keep", search.kept, "--n-best", search.n_best),
    ):
        if value > limit:
            raise ConfigError(
                tr(
                    en=f"more translations than there are: got {name} {value}, accepted up to {limit}, the {limit_name}. "
                    f"Raise {limit_name}, or lower {name}.",
                    zh=f"译文数过大：{name} 为 {value}，最多为 {limit_name} 的 {limit}。请提高 {limit_name} 或降低 {name}。",
                )
            )


def _monolingual(files: Sequence[str | Path], source_lang: str) -> EvaluationSet:
    texts = (normalise(line, source_lang) for file in files for line in read_lines(Path(file)))
    distinct = list(dict.fromkeys(filter(is_visible, texts)))
    if not distinct:
        raise DataError(
            tr(
                en=f"there is nothing to translate: got no line with text in {', '.join(map(str, files))}, accepted one or "
                "more. Check the files.",
                zh=f"没有可翻译的内容：{'、'.join(map(str, files))} 中没有文本行，至少需要一行。请检查文件。",
            )
        )
    return EvaluationSet(distinct, [[] for _ in distinct])


def _drawn(sentences: EvaluationSet, search: Search) -> list[Pair]:
    pairs = list(zip(sentences.sources, sentences.references, strict=True))
    count = max(1, round(len(pairs) * search.share))
    return [pairs[row] for row in np.sort(np.random.default_rng(search.seed).permutation(len(pairs))[:count])]


def _begin(parts: Path, settings: Mapping[str, object]) -> None:
    """A folder for parts, empty unless it was begun with the same settings."""
    stored = parts / "settings.json"
    wanted = json.dumps(settings, sort_keys=True)
    if not (stored.is_file() and stored.read_text(encoding="utf-8", errors="replace") == wanted):
        shutil.rmtree(parts, ignore_errors=True)
        write_atomically(stored, wanted)


def read_stored(path: Path, kind: type[T]) -> list[T] | None:
    """The lines of a JSONL file as objects of a dataclass; None where there is no file, or a line does not fit."""
    lines = TypeAdapter(kind)
    try:
        return [lines.validate_json(line, strict=True) for line in path.read_bytes().splitlines()]
    except (FileNotFoundError, ValueError):
        return None


def _write(choices: Sequence[Choice], gold: Mapping[str, list[str]], target_lang: str, path: Path) -> PseudoTargets:
    kept = [each for each in choices if each.failure is None]
    # A text that many different sources share says nothing about any of them.
    shared = check_translations(
        [each.source for each in kept], [Translation(each.target) for each in kept], target_lang=target_lang
    )
    dropped = Counter(each.failure for each in choices if each.failure) + Counter(filter(None, shared))
    kept = [each for each, failure in zip(kept, shared, strict=True) if failure is None]
    if not kept:
        raise DataError(
            tr(
                en=f"no translation of the teacher is fit to train on: got {_counted(dropped)}, accepted one or more that pass "
                "the output checks. Check the teacher, the languages and their direction.",
                zh=f"教师模型的译文均不可用于训练：{_counted(dropped)}，至少应有一条通过输出检查。请检查教师模型和语言方向。",
            )
        )
    columns = ("source", "target", "rank", "chrf")
    write_atomically(path, _as_lines({name: getattr(each, name) for name in columns} for each in kept))
    scores = [each.chrf for each in kept if each.chrf is not None]
    same = sum(each.target in gold[each.source] for each in kept)
    mean_chrf = sum(scores) / len(scores) if scores else math.nan
    return PseudoTargets(path, len(gold), len(kept), dict(dropped), same, mean_chrf)


def _counted(dropped: Mapping[str, int]) -> str:
    return listed(f"{check_name(check)} {count}" for check, count in dropped.items())


def _as_lines(rows: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
