"""What is checked before hours are spent: that teacher, data and languages fit, and that the teacher can translate.

Imported by the pipeline; imports teacher, data, decoding, evaluation.
"""

from mtdistill.config import TeacherConfig
from mtdistill.data.prepared import PreparedData, tokenizer_fingerprint
from mtdistill.decoding import CTranslate2Translator
from mtdistill.errors import TeacherError
from mtdistill.evaluation.quality import corpus_quality
from mtdistill.messages import tr
from mtdistill.teacher.loading import Teacher
from mtdistill.text import base_language

CHECKED_SENTENCES = 100


def check_teacher(teacher: Teacher, data: PreparedData, config: TeacherConfig, threads: int) -> float:
    """Refuse a teacher that does not fit the data or does not translate.

    Args:
        teacher: model and tokenizer.
        data: prepared with the teacher's tokenizer.
        config: holds the lowest accepted BLEU.
        threads: CPU threads for decoding.

    Returns:
        BLEU of the teacher on the first `CHECKED_SENTENCES` validation sources, greedy.

    Raises:
        TeacherError: other languages, another tokenizer, or a BLEU that is too low.
    """
    pairs = [
        (teacher.source_lang, data.source_lang),
        (teacher.target_lang, data.target_lang),
    ]
    if any(own and base_language(own) != base_language(wanted) for own, wanted in pairs):
        raise TeacherError(
            tr(
                en=f"this teacher translates other languages: got {teacher.source_lang}-{teacher.target_lang}, the data is "
                f"{data.source_lang}-{data.target_lang}. Use other data, or train a teacher for it: mtdistill teacher train",
                zh=f"教师模型的语言方向不符：教师为 {teacher.source_lang}-{teacher.target_lang}，数据为 "
                f"{data.source_lang}-{data.target_lang}。请更换数据，或为它训练教师模型：mtdistill teacher train",
            )
        )
    if tokenizer_fingerprint(teacher.tokenizer) != tokenizer_fingerprint(data.tokenizer):
        raise TeacherError(
            tr(
                en=f"the data was prepared with another tokenizer than the teacher's: {data.folder}. Prepare it again.",
                zh=f"数据所用的分词器与教师模型的不同：{data.folder}。请重新准备数据。",
            )
        )
    sentences = data.evaluation_set("validation", CHECKED_SENTENCES)
    translator = CTranslate2Translator.from_model(
        teacher.model, teacher.tokenizer, source_lang=data.source_lang, threads=threads
    )
    hypotheses = [translation.text for translation in translator.translate(sentences.sources)]
    bleu = corpus_quality(hypotheses, sentences.references, data.target_lang).bleu
    if bleu < config.min_bleu:
        example = f"{sentences.sources[0]} → {hypotheses[0]}"
        raise TeacherError(
            tr(
                en=f"the teacher does not translate this data: got BLEU {bleu:.1f} on {len(sentences)} validation sentences,"
                f" accepted at least {config.min_bleu:g} (for example: {example}). Check that source and target are not "
                "swapped and that it is the right teacher, or lower teacher.min_bleu.",
                zh=f"教师模型无法翻译这些数据：在 {len(sentences)} 个验证句上 BLEU 为 {bleu:.1f}，至少应为 "
                f"{config.min_bleu:g}（例如：{example}）。请检查源语言和目标语言是否颠倒、教师模型是否正确，"
                "或调低 teacher.min_bleu。",
            )
        )
    return bleu
