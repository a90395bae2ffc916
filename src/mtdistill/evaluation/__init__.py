"""What a model is worth: quality, success rate, speed and size, each with the conditions it was measured under.

Knows nothing of training. Imported by report and everything above; imports output_checks, decoding, text, messages.
"""

from mtdistill.evaluation.quality import Quality, Retention, corpus_quality, retention, sentence_chrf
from mtdistill.evaluation.size import ModelSize, model_size
from mtdistill.evaluation.speed import SpeedUp, cpu_name, measure_speed
from mtdistill.evaluation.success import FailedExample, Success, success_rate

__all__ = [
    "FailedExample",
    "ModelSize",
    "Quality",
    "Retention",
    "SpeedUp",
    "Success",
    "corpus_quality",
    "cpu_name",
    "measure_speed",
    "model_size",
    "retention",
    "sentence_chrf",
    "success_rate",
]
