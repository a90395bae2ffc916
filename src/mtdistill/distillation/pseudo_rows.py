"""Training rows with the teacher's translations beside the gold text: the setting `teacher.pseudo_targets`.

The translations are made once for a teacher and a text, and kept in the folder of results. Imported by cli and
distillation.student_run; imports config, data, teacher, distillation.candidates, distillation.materials and
distillation.pseudo_targets.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import numpy as np

from mtdistill.config import RunConfig
from mtdistill.data.prepared import EvaluationSet
from mtdistill.data.rows import tokenised_rows
from mtdistill.data.splits import SPLITS, shared_with
from mtdistill.data.splitting import keys_of
from mtdistill.display import Display
from mtdistill.distillation.candidates import search_for
from mtdistill.distillation.materials import Materials
from mtdistill.distillation.pseudo_targets import read_stored, write_pseudo_targets
from mtdistill.files import one_at_a_time
from mtdistill.messages import tr
from mtdistill.teacher.state_cache import model_fingerprint

FOLDER = "pseudo-targets"


@dataclass(frozen=True)
class _Pair:
    source: str
    target: str


def with_pseudo_targets(
    config: RunConfig, materials: Materials, rows: datasets.Dataset, display: Display
) -> datasets.Dataset:
    """The rows, and after them the teacher's translations of their sources that are fit to train on and no gold text.

    Translations that are held-out sentences are left out, as in all training text.

    Args:
        config: `teacher.pseudo_targets` says how many for each source; at 0 the rows come back as they are.
        materials: the teacher, and the languages of the data.
        rows: tokenised training pairs.
        display: shows the translating.

    Raises:
        DataError: no translation is fit to be trained on.
    """
    if not config.teacher.pseudo_targets:
        return rows
    teacher, data, sentences = materials.teacher, materials.data, EvaluationSet.of(rows)
    gold = dict(zip(sentences.sources, sentences.references, strict=True))
    pairs = _made_once(config, materials, sentences, gold, display)
    new = [asdict(pair) for pair in pairs if pair.target not in gold[pair.source]]
    if not new:
        return rows
    text = datasets.Dataset.from_list(new)
    # A translation may happen to be a held-out sentence.
    held_out = np.concatenate([keys_of(data.split(name)) for name in SPLITS[1:]])
    text = text.select(np.flatnonzero(~shared_with(keys_of(text), held_out)))
    display.say(
        tr(en=f"training on {len(text)} translations of the teacher as well", zh=f"同时用教师的 {len(text)} 个译文训练")
    )
    return datasets.concatenate_datasets([rows, tokenised_rows(text, teacher.tokenizer)])


def _made_once(
    config: RunConfig,
    materials: Materials,
    sentences: EvaluationSet,
    gold: Mapping[str, Sequence[str]],
    display: Display,
) -> list[_Pair]:
    """The teacher's translations of these sources, from disk if an earlier run has made them."""
    fingerprint, search = model_fingerprint(materials.teacher.model), search_for(config.teacher.pseudo_targets)
    made_of = json.dumps([fingerprint, asdict(search), sentences.sources, sentences.references])
    path = Path(config.output) / FOLDER / f"{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)

    def waiting() -> None:
        display.say(
            tr(
                en=f"another run is making the same translations: {path}. Waiting for them",
                zh=f"另一个训练任务正在生成同样的译文：{path}。正在等待",
            )
        )

    with one_at_a_time(path, waiting):
        pairs = _stored_pairs(path, gold)
        if pairs is None:
            translator, lang = materials.teacher_translator(), materials.data.target_lang
            made = write_pseudo_targets(sentences, translator, lang, path, search, display, teacher=fingerprint)
            display.say(str(made))
            pairs = _stored_pairs(path, gold) or []
        return pairs


def _stored_pairs(path: Path, gold: Mapping[str, Sequence[str]]) -> list[_Pair] | None:
    """What an earlier run has made; None: nothing, or something damaged, to be made again."""
    pairs = read_stored(path, _Pair)
    return pairs if pairs is not None and all(pair.source in gold for pair in pairs) else None
