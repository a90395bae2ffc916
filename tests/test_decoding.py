import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers.utils.logging import enable_progress_bar, is_progress_bar_enabled

from mtdistill.decoding import CTranslate2Translator, HuggingFaceTranslator, Translation, Translator
from mtdistill.errors import CheckpointError

Corpus = list[tuple[str, str]]
EngineName = str

# Nothing the tiny teacher has seen: it stutters, stops early or runs into the cap.
ODD_SOURCES = [
    "hello", "1", "???", "猫猫猫猫猫猫", "他他狗", "书 书 书 门", "Tom likes", "需要需要需要", "𠮷野家", "\u200b猫",
    "a" * 30, "我妈妈我妈妈我妈妈", "。", "鱼。鱼。鱼", "<pad> </s>", "Ünïcödé", "茶\n水", "0.5 %", "他 喜欢",
    "老师老师看见看见",
]  # fmt: skip


class Scripted(Translator):
    """An engine that says what it is told, and remembers what it was given."""

    engine = "scripted"
    precision = "none"
    threads = 1

    def __init__(self, tokenizer: Any, answer: Callable[[list[int]], list[int]], max_new_tokens: int = 256) -> None:
        super().__init__(tokenizer, "zh", max_new_tokens)
        self.answer = answer
        self.batches: list[list[list[int]]] = []
        self.caps: list[int] = []

    def _generate(self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int) -> list[list[int]]:
        self.batches.append(source_ids)
        self.caps.append(max_new_tokens)
        return [self.answer(ids)[:max_new_tokens] for ids in source_ids]


def built(engine: EngineName, teacher: Any, **options: Any) -> Translator:
    model, tokenizer = teacher
    if engine == "PyTorch":
        return HuggingFaceTranslator(model, tokenizer, source_lang="zh", **options)
    return CTranslate2Translator.from_model(model, tokenizer, source_lang="zh", **options)


ENGINES = ("PyTorch", "CTranslate2")
both_engines = pytest.mark.parametrize("engine", ENGINES)


@both_engines
def test_what_was_learnt_is_translated_in_the_order_given(
    engine: EngineName, tiny_teacher: Any, tiny_corpus: Corpus
) -> None:
    shuffled = tiny_corpus[::-3] + tiny_corpus[::7]
    translations = built(engine, tiny_teacher).translate([source for source, _ in shuffled], batch_size=16)
    assert translations == [Translation(target) for _, target in shuffled]


@both_engines
def test_lines_do_not_depend_on_what_shares_their_batch(
    engine: EngineName, tiny_teacher: Any, tiny_corpus: Corpus
) -> None:
    translator = built(engine, tiny_teacher)
    sources = [*ODD_SOURCES[:8], *(source for source, _ in tiny_corpus[:8])]
    one_by_one = [translator.translate([source])[0] for source in sources]
    assert translator.translate(sources, batch_size=5) == one_by_one
    assert any(each.hit_length_cap for each in one_by_one)  # the caps of a batch differ from those of its lines


def test_the_engines_agree(tiny_teacher: Any, tiny_corpus: Corpus) -> None:
    sources = [source for source, _ in tiny_corpus[:60]] + ODD_SOURCES
    outputs = {
        (engine, beam_size): built(engine, tiny_teacher).translate(sources, beam_size=beam_size)
        for engine in ENGINES
        for beam_size in (1, 4)
    }
    texts = [translation.text for translation in outputs["PyTorch", 1]]
    assert len(set(texts)) > 70  # a model that says the same to everything would agree with anything
    assert outputs["PyTorch", 1] == outputs["CTranslate2", 1]
    # Where the beams differ, it is the order of hypotheses whose scores are equal to the last digits.
    same = sum(a == b for a, b in zip(outputs["PyTorch", 4], outputs["CTranslate2", 4], strict=True))
    assert same >= 0.95 * len(sources)


def test_the_beam_size_reaches_the_engines(tiny_teacher: Any) -> None:
    for engine in ENGINES:
        translator = built(engine, tiny_teacher)
        assert translator.translate(ODD_SOURCES, beam_size=1) != translator.translate(ODD_SOURCES, beam_size=4), engine


def test_int8_translates_and_says_so(tiny_teacher: Any, tiny_corpus: Corpus) -> None:
    translator = built("CTranslate2", tiny_teacher, compute_type="int8", threads=2)
    outputs = translator.translate([source for source, _ in tiny_corpus])
    assert sum(output.text == target for output, (_, target) in zip(outputs, tiny_corpus, strict=True)) > 150
    assert (translator.engine, translator.precision, translator.threads) == ("CTranslate2", "int8", 2)
    assert translator._engine_model.compute_type == "int8_float32"  # type: ignore[attr-defined]


def test_pytorch_names_its_conditions(tiny_teacher: Any) -> None:
    translator = built("PyTorch", tiny_teacher)
    assert (translator.engine, translator.precision, translator.threads) == (
        "PyTorch",
        "float32",
        torch.get_num_threads(),
    )


class TestSources:
    def test_empty_lines_never_reach_the_engine(self, tiny_tokenizer: Any) -> None:
        translator = Scripted(tiny_tokenizer, lambda ids: ids)
        assert translator.translate(["", " \t\u3000\n"]) == [Translation("")] * 2
        assert translator.translate(["", "猫", " ", "狗狗"]) == [Translation(text) for text in ("", "猫", "", "狗狗")]
        assert [len(batch) for batch in translator.batches] == [2]
        assert translator.translate([]) == []

    @pytest.mark.parametrize(
        ("typed", "plain"),
        [("我媽媽喜歡貓。", "我妈妈喜欢猫。"), (" Ｔom\u3000喜欢  猫 ", "Tom 喜欢 猫"), ("猫\n狗", "猫 狗")],
    )
    def test_are_normalised(self, typed: str, plain: str, tiny_tokenizer: Any) -> None:
        assert Scripted(tiny_tokenizer, lambda ids: ids).translate([typed])[0].text == plain

    def test_chinese_characters_are_only_changed_in_chinese(self, tiny_tokenizer: Any) -> None:
        translator = Scripted(tiny_tokenizer, lambda ids: ids)
        translator.source_lang = "ja"
        assert translator.translate(["漢字"])[0].text == "漢字"

    def test_bytes_that_are_not_text_do_no_harm(self, tiny_tokenizer: Any) -> None:
        assert Scripted(tiny_tokenizer, lambda ids: ids).translate(["猫\udcff"])[0].text == "猫?"

    def test_special_tokens_in_a_source_are_text(self, tiny_tokenizer: Any) -> None:
        assert Scripted(tiny_tokenizer, lambda ids: ids).translate(["a </s> <pad> b"])[0].text == "a </s> <pad> b"


class TestBatches:
    def test_hold_lines_of_similar_length(self, tiny_tokenizer: Any) -> None:
        translator = Scripted(tiny_tokenizer, lambda ids: ids)
        translator.translate(["q" * length for length in (3, 40, 1, 38, 2, 39, 37)], batch_size=3)
        lengths = [[len(ids) for ids in batch] for batch in translator.batches]
        assert [len(batch) for batch in lengths] == [3, 3, 1]
        assert min(lengths[0]) > max(lengths[1])
        assert min(lengths[1]) > max(lengths[2])

    def test_of_very_long_lines_are_smaller(self, tiny_tokenizer: Any) -> None:
        translator = Scripted(tiny_tokenizer, lambda ids: ids[-1:])
        translator.translate(["q" * 5000] * 4 + ["q"] * 4, batch_size=32)
        tokens = [len(batch) * max(map(len, batch)) for batch in translator.batches]
        assert max(tokens) <= 16_384
        assert sum(len(batch) for batch in translator.batches) == 8

    def test_a_line_too_long_for_any_batch_goes_alone(self, tiny_tokenizer: Any) -> None:
        translator = Scripted(tiny_tokenizer, lambda ids: ids[-1:])
        translator.translate(["q" * 20_000, "q" * 20_000])
        assert [len(batch) for batch in translator.batches] == [1, 1]


class TestLengthCap:
    def test_three_times_the_source_and_ten_up_to_the_limit(self, tiny_tokenizer: Any) -> None:
        endless = Scripted(tiny_tokenizer, lambda ids: [ids[0]] * 1000, max_new_tokens=40)
        for source in ("q" * 4, "q" * 8, "q" * 100):
            endless.translate([source])
        tokens = [len(tiny_tokenizer(source)["input_ids"]) for source in ("q" * 4, "q" * 8)]
        assert endless.caps == [3 * tokens[0] + 10, 3 * tokens[1] + 10, 40]

    def test_an_unfinished_line_is_cut_at_its_own_cap_and_says_so(self, tiny_tokenizer: Any) -> None:
        [piece] = tiny_tokenizer.convert_tokens_to_ids(["q"])
        endless = Scripted(tiny_tokenizer, lambda ids: [piece] * 1000)
        short, long = endless.translate(["猫", "猫" * 30])
        tokens = [len(tiny_tokenizer(source)["input_ids"]) for source in ("猫", "猫" * 30)]
        assert short == Translation("q" * (3 * tokens[0] + 10), hit_length_cap=True)
        assert long == Translation("q" * (3 * tokens[1] + 10), hit_length_cap=True)

    @pytest.mark.parametrize(("beyond", "hit"), [(0, False), (1, True)])
    def test_the_end_mark_counts(self, beyond: int, hit: bool, tiny_tokenizer: Any) -> None:
        [piece] = tiny_tokenizer.convert_tokens_to_ids(["q"])
        cap = 3 * len(tiny_tokenizer("猫")["input_ids"]) + 10
        translator = Scripted(tiny_tokenizer, lambda _ids: [piece] * (cap - 1 + beyond) + [tiny_tokenizer.eos_token_id])
        assert translator.translate(["猫"])[0].hit_length_cap is hit

    @both_engines
    def test_stops_the_engines(self, engine: EngineName, tiny_teacher: Any, tiny_corpus: Corpus) -> None:
        source, target = tiny_corpus[0]
        tokens = len(tiny_teacher[1](target)["input_ids"])
        # The last token is the end mark, the one before it the full stop.
        for limit, expected in (
            (tokens, Translation(target)),
            (tokens - 1, Translation(target, hit_length_cap=True)),
            (tokens - 2, Translation(target[:-1], hit_length_cap=True)),
        ):
            assert built(engine, tiny_teacher, max_new_tokens=limit).translate([source]) == [expected]


class TestPyTorchModel:
    def test_the_training_mode_is_off_while_it_translates_and_comes_back(
        self, tiny_teacher: Any, tiny_corpus: Corpus
    ) -> None:
        model, _ = tiny_teacher
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.9
        translator = built("PyTorch", tiny_teacher)
        for training in (True, False):
            model.train(training)
            outputs = translator.translate([source for source, _ in tiny_corpus])
            assert [output.text for output in outputs] == [target for _, target in tiny_corpus]
            assert model.training is training

    def test_the_training_mode_comes_back_after_an_error(
        self, tiny_teacher: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, _ = tiny_teacher
        model.train()
        monkeypatch.setattr(model, "generate", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            built("PyTorch", tiny_teacher).translate(["猫"])
        assert model.training

    def test_what_the_folder_says_about_generation_is_not_followed(
        self, tiny_teacher: Any, tiny_corpus: Corpus
    ) -> None:
        model, _ = tiny_teacher
        sources = [source for source, _ in tiny_corpus[:20]] + ODD_SOURCES
        expected = {
            beam_size: built("PyTorch", tiny_teacher).translate(sources, beam_size=beam_size) for beam_size in (1, 3)
        }
        for name, value in {
            "num_beams": 2, "do_sample": True, "min_length": 12, "max_length": 3, "repetition_penalty": 3.0,
            "no_repeat_ngram_size": 1, "length_penalty": -5.0, "early_stopping": False,
        }.items():  # fmt: skip
            setattr(model.generation_config, name, value)
        for beam_size, translations in expected.items():
            assert built("PyTorch", tiny_teacher).translate(sources, beam_size=beam_size) == translations

    def test_no_call_warns(self, tiny_teacher: Any, caplog: pytest.LogCaptureFixture) -> None:
        tiny_teacher[0].generation_config.max_length = 20  # as the folders of older models say
        logger = logging.getLogger("transformers")
        logger.addHandler(caplog.handler)
        try:
            for beam_size in (1, 2):
                built("PyTorch", tiny_teacher).translate(["猫", "他喜欢狗。"], beam_size=beam_size)
        finally:
            logger.removeHandler(caplog.handler)
        assert caplog.messages == []


class TestConversion:
    def test_a_folder_is_read_and_nothing_stays_behind(
        self, tiny_teacher: Any, tiny_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, tokenizer = tiny_teacher
        folder, scratch = tmp_path / "model", tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(scratch))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        before = {path.name for path in folder.iterdir()}
        translator = CTranslate2Translator.from_folder(folder, source_lang="zh")
        assert {path.name for path in folder.iterdir()} == before
        assert list(scratch.iterdir()) == []
        assert translator.translate([tiny_corpus[0][0]]) == [Translation(tiny_corpus[0][1])]

    def test_shows_no_progress_bars_and_leaves_them_on(
        self, tiny_teacher: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        for part in tiny_teacher:
            part.save_pretrained(tmp_path)
        capfd.readouterr()
        enable_progress_bar()  # whatever an earlier test of the command line left behind
        CTranslate2Translator.from_folder(tmp_path, source_lang="zh")
        built("CTranslate2", tiny_teacher)
        assert capfd.readouterr() == ("", "")
        assert is_progress_bar_enabled()

    def test_what_ctranslate2_is_asked_for(self, tiny_teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        engine_model = Mock()
        engine_model.translate_batch.return_value = [Mock(hypotheses=[[]])]
        opened = Mock(return_value=engine_model)
        monkeypatch.setattr("ctranslate2.Translator", opened)
        built("CTranslate2", tiny_teacher, threads=3, max_new_tokens=1000).translate(["q" * 500])
        assert (opened.call_args.kwargs["intra_threads"], opened.call_args.kwargs["inter_threads"]) == (3, 1)
        assert engine_model.translate_batch.call_args.kwargs["max_decoding_length"] == 1000  # 256 by default

    def test_a_model_in_memory_stays_as_it_is(self, tiny_teacher: Any) -> None:
        model, _ = tiny_teacher
        model.train()
        weights = copy.deepcopy(model.state_dict())
        built("CTranslate2", tiny_teacher)
        assert model.training
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())

    def test_a_long_source_is_read_to_its_end(self, tiny_teacher: Any) -> None:
        # CTranslate2 by itself drops what follows the first 1024 tokens.
        source = "q" * 1100 + "老师" * 500
        texts = {engine: built(engine, tiny_teacher).translate([source, source[:1024]]) for engine in ENGINES}
        assert texts["PyTorch"] == texts["CTranslate2"]
        assert texts["PyTorch"][0] != texts["PyTorch"][1]

    def test_a_folder_without_a_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"to CTranslate2: got .*ValueError: .*accepted a Hugging Face"):
            CTranslate2Translator.from_folder(tmp_path, source_lang="zh")
