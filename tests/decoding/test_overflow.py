from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mtdistill.decoding.overflow import int8_overflows, overflow_hint


@pytest.mark.parametrize(
    ("known", "environment", "overflows"),
    [
        ({"cpu_name": "AMD Ryzen 7 5800X", "avx_vnni": False, "avx512_vnni": False}, {}, True),
        ({"cpu_name": "AMD Ryzen 7 5800X"}, {"CT2_USE_MKL": "0"}, True),
        ({"cpu_name": "AMD Ryzen 7 5800X"}, {"CT2_USE_MKL": "1"}, False),
        ({"cpu_name": "AMD EPYC 9554", "avx512_vnni": True}, {}, False),
        ({"cpu_name": "AMD EPYC 9554", "avx_vnni": True}, {}, False),
        ({"cpu_name": "Intel(R) Core(TM) i5-7200U"}, {}, False),
        ({"cpu_name": "Apple M2"}, {}, False),
        ({}, {}, False),
    ],
)
def test_int8_overflows_on_older_processors_of_amd(
    known: dict[str, Any], environment: dict[str, str], overflows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CT2_USE_MKL")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert int8_overflows() is overflows


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(
    ("engine", "precision", "overflows", "said"),
    [
        ("CTranslate2", "int8", True, True),
        ("CTranslate2", "int8", False, False),
        ("CTranslate2", "float32", True, False),
        ("ONNX Runtime", "int8", True, False),
    ],
)
def test_the_hint_is_for_int8_in_ctranslate2_where_it_overflows(
    engine: str, precision: str, overflows: bool, said: bool, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtdistill.messages._chosen", lang)
    monkeypatch.setattr("mtdistill.decoding.overflow.int8_overflows", lambda: overflows)
    translator: Any = SimpleNamespace(engine=engine, precision=precision)
    assert ("CT2_USE_MKL=1" in overflow_hint(translator)) is said
