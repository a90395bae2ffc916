"""Where int8 goes wrong by the processor: CTranslate2 without VNNI instructions, see docs/experiments.md, 2026-11-27.

Imported by cli, distillation and export; imports decoding.translator.
"""

import os
from typing import Any

import torch

from mtdistill.decoding.translator import Translator
from mtdistill.messages import tr


def int8_overflows() -> bool:
    """Whether CTranslate2 adds int8 products in 16 bits on this processor: with oneDNN, which it takes on AMD, and no VNNI.

    False where the processor is not known.
    """
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in every PyTorch
    vnni = known.get("avx512_vnni") or known.get("avx_vnni")
    return "AMD" in known.get("cpu_name", "") and not vnni and os.environ.get("CT2_USE_MKL", "0") == "0"


def overflow_hint(translator: Translator) -> str:
    """What to do where a model loses quality to the processor; empty where it does not."""
    if (translator.engine, translator.precision) != ("CTranslate2", "int8") or not int8_overflows():
        return ""
    return tr(
        en="CTranslate2's int8 overflows on this processor; set CT2_USE_MKL=1 in the environment, and it does not.",
        zh="在此处理器上，CTranslate2 的 int8 会溢出；设置环境变量 CT2_USE_MKL=1 可避免。",
    )
