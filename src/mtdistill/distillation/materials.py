"""What a run needs before there is a student: teacher, tokenised data, threads, checked against each other.

Imported by cli and its neighbours; imports config, data, decoding, teacher, training, distillation.preflight and
distillation.summaries.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from mtdistill.config import RunConfig
from mtdistill.data.prepared import PreparedData, prepare_data
from mtdistill.decoding import ComputeType, CTranslate2Translator
from mtdistill.display import Display
from mtdistill.distillation.preflight import check_teacher
from mtdistill.distillation.summaries import data_summary
from mtdistill.messages import tr
from mtdistill.teacher.loading import Teacher, load_teacher
from mtdistill.training.engine import prepare_processor


@dataclass(frozen=True)
class Materials:
    """What a run needs before the student: teacher, tokenised data, threads."""

    teacher: Teacher
    data: PreparedData
    threads: int

    def teacher_translator(self, precision: ComputeType = "float32") -> CTranslate2Translator:
        """The teacher for translating much text: CTranslate2, with pieces of the target language only, on all threads."""
        return CTranslate2Translator.from_model(
            self.teacher.model,
            self.teacher.tokenizer,
            source_lang=self.data.source_lang,
            target_lang=self.data.target_lang,
            compute_type=precision,
            threads=self.threads,
        )


def prepare_materials(config: RunConfig, display: Display) -> Materials:
    """Load the teacher, prepare the data with its tokenizer, and check that they fit.

    Raises:
        TeacherError: the teacher is refused; the message says why.
        DataError: the data is unusable.
    """
    threads = config.training.threads or torch.get_num_threads()
    prepare_processor(threads)
    teacher = load_teacher(config.teacher.path)
    data = prepare_data(config.data, Path(config.output) / "data", teacher.tokenizer, display.say)
    display.say(data_summary(data))
    bleu = check_teacher(teacher, data, config.teacher, threads)
    display.say(
        tr(
            en=f"teacher: {teacher.folder.name}, BLEU {bleu:.1f} on the first validation sentences",
            zh=f"教师模型：{teacher.folder.name}，在前若干验证句上 BLEU 为 {bleu:.1f}",
        )
    )
    return Materials(teacher, data, threads)
