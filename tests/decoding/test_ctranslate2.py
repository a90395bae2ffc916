import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers.utils.logging import enable_progress_bar, is_progress_bar_enabled

from mtdistill.decoding import CTranslate2Translator, Translation, Translator
from mtdistill.errors import CheckpointError

Corpus = list[tuple[str, str]]
Build = Callable[..., Translator]


def from_model(teacher: Any, **options: Any) -> CTranslate2Translator:
    model, tokenizer = teacher
    return CTranslate2Translator.from_model(model, tokenizer, source_lang="zh", **options)


class TestOpening:
    def test_names_its_conditions(self, build: Build) -> None:
        translator = build("CTranslate2", threads=2)
        assert (translator.engine, translator.precision, translator.threads) == ("CTranslate2", "float32", 2)

    @pytest.mark.parametrize("threads", [1, 2])
    def test_leaves_the_threads_of_pytorch_alone(self, threads: int, tiny_teacher: Any) -> None:
        torch.set_num_threads(2)
        translator = from_model(tiny_teacher, threads=threads)
        assert torch.get_num_threads() == 2
        translator.translate(["他喜欢猫。"] * 3)
        assert torch.get_num_threads() == 2

    def test_batches_of_one_call_may_run_side_by_side(self, tiny_teacher: Any, learnt: dict[str, Translation]) -> None:
        translator = from_model(tiny_teacher, threads=2)
        assert translator.translate(list(learnt), batch_size=7) == list(learnt.values())
        assert translator._engine_model.num_translators == 2

    def test_computes_in_another_format_than_the_stored_one(self, build: Build, learnt: dict[str, Translation]) -> None:
        translator = build("CTranslate2", compute_type="int8")
        outputs = translator.translate(list(learnt))
        assert sum(output.text == known.text for output, known in zip(outputs, learnt.values(), strict=True)) > 150
        assert translator.precision == "int8"
        assert translator._engine_model.compute_type == "int8_float32"  # type: ignore[attr-defined]

    @pytest.mark.parametrize("damage", ["empty", "no model.bin", "half of model.bin", "no tokenizer"])
    def test_refuses_what_is_no_model(self, damage: str, ctranslate2_folder: Path, tmp_path: Path) -> None:
        if damage != "empty":
            for file in ctranslate2_folder.iterdir():
                (tmp_path / file.name).write_bytes(file.read_bytes())
        if damage == "no model.bin":
            (tmp_path / "model.bin").unlink()
        elif damage == "half of model.bin":
            whole = (tmp_path / "model.bin").read_bytes()
            (tmp_path / "model.bin").write_bytes(whole[: len(whole) // 2])
        elif damage == "no tokenizer":
            for file in tmp_path.glob("tokenizer*"):
                file.unlink()
        with pytest.raises(CheckpointError, match=r"got .*Error: .*accepted a folder with model\.bin"):
            CTranslate2Translator.open(tmp_path, source_lang="zh")

    def test_asks_ctranslate2_for_what_it_was_asked(self, tiny_teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        engine_model = Mock(compute_type="int8_float32")
        engine_model.translate_batch.return_value = [Mock(result=lambda: Mock(hypotheses=[[]]))]
        opened = Mock(return_value=engine_model)
        monkeypatch.setattr("ctranslate2.Translator", opened)
        from_model(tiny_teacher, threads=3, max_new_tokens=1000).translate(["q" * 500])
        assert (opened.call_args.kwargs["intra_threads"], opened.call_args.kwargs["inter_threads"]) == (1, 3)
        assert engine_model.translate_batch.call_args.kwargs["max_decoding_length"] == 1000  # 256 by default


class TestFromAHuggingFaceFolder:
    def test_nothing_stays_behind(
        self, tiny_teacher_folder: Path, learnt: dict[str, Translation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        before = {path.name for path in tiny_teacher_folder.iterdir()}
        translator = CTranslate2Translator.from_folder(tiny_teacher_folder, source_lang="zh")
        assert {path.name for path in tiny_teacher_folder.iterdir()} == before
        assert list(tmp_path.iterdir()) == []
        source = next(iter(learnt))
        assert translator.translate([source]) == [learnt[source]]

    def test_shows_no_progress_bars_and_leaves_them_on(
        self, tiny_teacher: Any, tiny_teacher_folder: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        capfd.readouterr()
        enable_progress_bar()  # whatever an earlier test of the command line left behind
        CTranslate2Translator.from_folder(tiny_teacher_folder, source_lang="zh")
        from_model(tiny_teacher)
        assert capfd.readouterr() == ("", "")
        assert is_progress_bar_enabled()

    def test_a_model_in_memory_stays_as_it_is(self, tiny_teacher: Any) -> None:
        model, _ = tiny_teacher
        model.train()
        weights = copy.deepcopy(model.state_dict())
        from_model(tiny_teacher)
        assert model.training
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


class TestCandidates:
    def test_are_those_that_transformers_finds(self, tiny_teacher: Any, learnt: dict[str, Translation]) -> None:
        model, tokenizer = tiny_teacher
        sources = list(learnt)[:20]
        found = from_model(tiny_teacher).candidates(sources, beam_size=4, number=3)
        inputs = tokenizer(sources, padding=True, return_tensors="pt")
        output_ids = model.generate(
            **inputs, num_beams=4, num_return_sequences=3, early_stopping=True, max_new_tokens=40
        )
        expected = [text.strip() for text in tokenizer.batch_decode(output_ids, skip_special_tokens=True)]
        texts = [candidate.text for candidates in found for candidate in candidates]
        same = sum(a == b for a, b in zip(texts, expected, strict=True))
        assert same >= 0.9 * len(expected)  # the last of a list may be a near tie
        assert [candidates[0].text for candidates in found] == expected[::3]

    def test_begin_with_the_translation_and_differ(self, tiny_teacher: Any, learnt: dict[str, Translation]) -> None:
        translator, sources = from_model(tiny_teacher), [*learnt, "\u200b"]
        found = translator.candidates(sources, beam_size=4, number=4, batch_size=7)
        assert [candidates[0] for candidates in found] == translator.translate(sources, beam_size=4, batch_size=7)
        assert all(len({candidate.text for candidate in candidates}) > 1 for candidates in found[:-1])
        assert [len(candidates) for candidates in found] == [4] * len(learnt) + [1]
