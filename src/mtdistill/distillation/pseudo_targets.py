"""Pseudo-targets: training text whose targets the teacher has translated.

Also called sequence-level knowledge distillation, forward translation, or distilled data (Kim & Rush 2016,
arXiv:1606.07947). Of the n best translations of a beam search the one closest to the gold text is kept, by sentence
chrF2 (their "sequence-level interpolation"); where there is no gold text, the best of the search. What fails an output
check is left out. Added to the gold pairs as more training text, as Gordon & Duh 2019 (arXiv:1912.03334) do.

Imported by the command line; imports teacher, decoding, evaluation, output_checks.
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
from mtdistill.distillation.materials import prepare_materials
from mtdistill.errors import ConfigError, DataError
from mtdistill.evaluation import sentence_chrf
from mtdistill.files import write_atomically
from mtdistill.messages import listed, tr
from mtdistill.output_checks import check_translation, check_translations
from mtdistill.report.wording import check_name
from mtdistill.teacher.state_cache import weights_fingerprint
from mtdistill.text import normalise

CHUNK_SENTENCES = 1024  # what a kill may cost
_Pair = tuple[str, list[str]]  # a source and its gold texts
T = TypeVar("T")


@dataclass(frozen=True)
class Search:
    """How the teacher translates.

    Attributes:
        beam_size: hypotheses kept in the search.
        n_best: translations to choose from, at most `beam_size`.
        share: of the sources that are translated, in (0, 1]; which ones is drawn by `seed`.
        seed: of that draw.
    """

    beam_size: int = 5
    n_best: int = 4
    share: float = 1.0
    seed: int = 1


DEFAULT_SEARCH = Search()


@dataclass(frozen=True)
class PseudoTargets:
    """What was written.

    Attributes:
        path: JSONL, a pair a line: source, target, rank (of the choice among the n best, 0 for the best) and chrf
            (sentence chrF2 to the gold text, null without one).
        sources: distinct sentences that were translated.
        written: pairs in the file.
        dropped: how many sources have no pair, by the check their translation failed.
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


@dataclass(frozen=True)
class _Choice:
    source: str
    target: str
    rank: int
    chrf: float | None
    failure: str | None


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
        sentences, translator, data.target_lang, path, search, display, teacher=weights_fingerprint(teacher.model)
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
    choices: list[_Choice] = []
    with display.bar(tr(en="translating", zh="正在翻译"), len(pairs)) as bar:
        for first in range(0, len(pairs), CHUNK_SENTENCES):
            part = parts / f"{first:09}.jsonl"
            chunk = pairs[first : first + CHUNK_SENTENCES]
            found = read_stored(part, _Choice)  # by an interrupted run; what is damaged is translated again
            if found is None or [each.source for each in found] != [source for source, _ in chunk]:
                found = _choose(chunk, translator, target_lang, search)
                write_atomically(part, _as_lines(asdict(each) for each in found))
            choices += found
            bar.advance_to(len(choices))
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
    if search.n_best > search.beam_size:
        raise ConfigError(
            tr(
                en=f"more translations than the search keeps: got --n-best {search.n_best}, accepted up to {search.beam_size}, "
                "the beam. Raise --beam, or lower --n-best.",
                zh=f"候选译文数大于束宽：--n-best 为 {search.n_best}，最多 {search.beam_size}。"
                "请提高 --beam 或降低 --n-best。",
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


def _drawn(sentences: EvaluationSet, search: Search) -> list[_Pair]:
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


def _choose(
    pairs: Sequence[_Pair], translator: CTranslate2Translator, target_lang: str, search: Search
) -> list[_Choice]:
    sources = [source for source, _ in pairs]
    found = translator.candidates(sources, beam_size=search.beam_size, number=search.n_best)
    return [_best(source, gold, each, target_lang) for (source, gold), each in zip(pairs, found, strict=True)]


def _best(source: str, gold: Sequence[str], candidates: Sequence[Translation], target_lang: str) -> _Choice:
    """The candidate that is closest to the gold text, of those that pass the checks; the best one where none does."""
    failures = [
        check_translation(source, each.text, target_lang=target_lang, hit_length_cap=each.hit_length_cap)
        for each in candidates
    ]
    passing = [rank for rank, failure in enumerate(failures) if failure is None]
    if not passing:
        return _Choice(source, candidates[0].text, 0, None, failures[0])
    if not gold:
        return _Choice(source, candidates[passing[0]].text, passing[0], None, None)
    scores = {rank: sentence_chrf(candidates[rank].text, gold) for rank in passing}
    rank = max(scores, key=lambda rank: scores[rank])
    return _Choice(source, candidates[rank].text, rank, scores[rank], None)


def _write(choices: Sequence[_Choice], gold: Mapping[str, list[str]], target_lang: str, path: Path) -> PseudoTargets:
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
    return PseudoTargets(path, len(choices), len(kept), dict(dropped), same, mean_chrf)


def _counted(dropped: Mapping[str, int]) -> str:
    return listed(f"{check_name(check)} {count}" for check, count in dropped.items())


def _as_lines(rows: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
