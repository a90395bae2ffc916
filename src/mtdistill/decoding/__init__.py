"""Text in, translations out: one interface over a model in PyTorch, CTranslate2 and ONNX Runtime.

Imported by cli, distillation, evaluation, export, mtdistill, output_checks, report and student; imports data.
"""

from mtdistill.decoding.conversion import Quantization, convert_model_to_ctranslate2, convert_to_ctranslate2
from mtdistill.decoding.ctranslate2 import ComputeType, CTranslate2Translator
from mtdistill.decoding.huggingface import HuggingFaceTranslator
from mtdistill.decoding.onnx import OnnxPrecision, OnnxTranslator
from mtdistill.decoding.translator import DEFAULT_MAX_NEW_TOKENS, Translation, Translator

__all__ = [
    "DEFAULT_MAX_NEW_TOKENS",
    "CTranslate2Translator",
    "ComputeType",
    "HuggingFaceTranslator",
    "OnnxPrecision",
    "OnnxTranslator",
    "Quantization",
    "Translation",
    "Translator",
    "convert_model_to_ctranslate2",
    "convert_to_ctranslate2",
]
