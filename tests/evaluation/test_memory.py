"""Processes of their own, which take seconds to start: the three of them run at once."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.decoding import convert_to_ctranslate2
from mtdistill.evaluation import peak_memory_mib
from mtdistill.modeling import t5_config

SOURCES = ["他喜欢猫。", "老师看见狗。\n", "", "a\udcffb"]
LARGE_MIB = 64  # of the matrices that the large model has more


@pytest.fixture(scope="module")
def measured(
    tiny_teacher_folder: Path, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, float | None]:
    """Of the tiny teacher, of one much larger, and of a folder without a model."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("tiny", "large", "none")}
    convert_to_ctranslate2(tiny_teacher_folder, folders["tiny"])
    width, inner = 256, LARGE_MIB * 2**20 // 4 // (256 * 4)  # two matrices in each of two layers
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = t5_config(len(tiny_tokenizer), encoder_layers=1, decoder_layers=1, width=width,
                           feed_forward_width=inner)  # fmt: skip
        model = T5ForConditionalGeneration(config)
    source = tmp_path_factory.mktemp("source")
    model.save_pretrained(source)
    tiny_tokenizer.save_pretrained(source)
    convert_to_ctranslate2(source, folders["large"])
    with ThreadPoolExecutor() as pool, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CT2_USE_MKL", "0")  # MKL, on Intel the usual, keeps the weights once more, in an order of its own
        found = pool.map(lambda folder: peak_memory_mib(folder, SOURCES, "zh"), folders.values())
        return dict(zip(folders, found, strict=True))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
class TestPeak:
    def test_a_model_takes_memory(self, measured: dict[str, float | None]) -> None:
        assert measured["tiny"] is not None
        # The weights are 0.1 MiB; Python and its packages, which do not count, are more than 100.
        assert 0 < measured["tiny"] < 100

    def test_a_larger_model_takes_as_much_more_as_its_weights(self, measured: dict[str, float | None]) -> None:
        assert measured["large"] is not None
        assert measured["tiny"] is not None
        assert 0.9 * LARGE_MIB < measured["large"] - measured["tiny"] < 2.5 * LARGE_MIB

    def test_of_a_folder_that_is_no_model_nothing_is_known(self, measured: dict[str, float | None]) -> None:
        assert measured["none"] is None


class TestChild:
    """What the process is asked to do, without starting it."""

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[str], dict[str, Any]]]:
        calls: list[tuple[Sequence[str], dict[str, Any]]] = []

        def run(command: Sequence[str], **options: Any) -> Any:
            calls.append((command, options))
            return SimpleNamespace(stdout=b"12.5")

        monkeypatch.setattr("mtdistill.evaluation.memory.subprocess.run", run)
        return calls

    def test_gets_the_folder_the_language_and_the_number_format(self, calls: list[Any]) -> None:
        assert peak_memory_mib(Path("a model"), SOURCES, "zh", "int8") == 12.5
        command, _ = calls[0]
        assert command == [sys.executable, "-m", "mtdistill.evaluation.memory", "a model", "zh", "int8"]

    def test_gets_one_sentence_a_line_and_256_at_most(self, calls: list[Any]) -> None:
        sources = ["two\nlines", "\u2028 and\r\nmore \x85", "a\udcffb"] + ["他"] * 300
        peak_memory_mib(Path("m"), sources, "zh")
        lines = calls[0][1]["input"].decode("utf-8").split("\n")
        assert lines == ["two lines", "and more", "a?b"] + ["他"] * 253

    @pytest.mark.parametrize("output", [b"", b"Killed", b"1.5 MiB", b"\xff"])
    def test_says_nothing_that_could_be_taken_for_a_figure_when_it_fails(
        self, output: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "mtdistill.evaluation.memory.subprocess.run", lambda *_a, **_k: SimpleNamespace(stdout=output)
        )
        assert peak_memory_mib(Path("m"), SOURCES, "zh") is None
