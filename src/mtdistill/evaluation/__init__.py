"""What a model is worth: quality, success rate, speed and size, each with the conditions it was measured under.

Knows nothing of training. Imported by distillation, export and report; imports decoding, health and output_checks.
"""

from mtdistill.evaluation.breakdown import (
    LENGTH_EDGES,
    RARITY_EDGES,
    QualityClass,
    SentenceScore,
    quality_by,
    rarest_piece_counts,
    worst_sentences,
)
from mtdistill.evaluation.comet import comet_scores, require_comet
from mtdistill.evaluation.memory import peak_memory_mib
from mtdistill.evaluation.quality import Quality, Retention, corpus_quality, retention, sentence_chrf
from mtdistill.evaluation.size import ModelSize, model_size
from mtdistill.evaluation.speed import SpeedUp, Timing, cpu_name, measure_speed
from mtdistill.evaluation.success import FailedExample, Success, success_rate

__all__ = [
    "LENGTH_EDGES",
    "RARITY_EDGES",
    "FailedExample",
    "ModelSize",
    "Quality",
    "QualityClass",
    "Retention",
    "SentenceScore",
    "SpeedUp",
    "Success",
    "Timing",
    "comet_scores",
    "corpus_quality",
    "cpu_name",
    "measure_speed",
    "model_size",
    "peak_memory_mib",
    "quality_by",
    "rarest_piece_counts",
    "require_comet",
    "retention",
    "sentence_chrf",
    "success_rate",
    "worst_sentences",
]
