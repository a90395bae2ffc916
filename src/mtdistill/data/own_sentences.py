"""Sentence pairs of the user's own to judge a model on.

Imported by distillation and export; imports data.prepared and data.readers.
"""

from collections.abc import Sequence

from mtdistill.data.prepared import EvaluationSet
from mtdistill.data.readers import read_pairs
from mtdistill.errors import DataError
from mtdistill.messages import tr
from mtdistill.text import normalise, normalise_target


def read_evaluation_set(files: Sequence[str], source_lang: str, target_lang: str) -> EvaluationSet:
    """Distinct sources, normalised like training data, with every reference of each. Nothing is cleaned away.

    Args:
        files: files or folders, as `read_pairs` takes them.
        source_lang: language code of the sources.
        target_lang: language code of the references.

    Raises:
        DataError: the languages are not known, a file cannot be read, or no pair has text on both sides.
    """
    if not source_lang or not target_lang:
        raise DataError(
            tr(
                en=f"the languages of the sentences are not known: got source {source_lang!r}, target {target_lang!r}, "
                "accepted a model that says what it translates. Use a student or teacher that mtdistill trained.",
                zh=f"不知道句对的语言：源语言 {source_lang!r}，目标语言 {target_lang!r}，需要注明语言方向的模型。"
                "请使用由 mtdistill 训练的学生或教师模型。",
            )
        )
    references: dict[str, list[str]] = {}
    for pair in read_pairs(files, source_lang, target_lang):
        source, target = normalise(pair.source, source_lang), normalise_target(pair.target, target_lang)
        if source and target:
            references.setdefault(source, []).append(target)
    if not references:
        raise DataError(
            tr(
                en=f"there is nothing to translate: got no pair with text on both sides in {', '.join(files)}, "
                "accepted one or more. Check the files.",
                zh=f"没有可翻译的内容：{'、'.join(files)} 中没有两侧都有文本的句对，至少需要一对。请检查文件。",
            )
        )
    return EvaluationSet(list(references), list(references.values()))
