from collections.abc import Callable
from typing import Any

import pytest

from mtdistill.decoding import Translation, Translator

Corpus = list[tuple[str, str]]
Build = Callable[..., Translator]


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
        self.ngrams: list[int] = []

    def _generate(
        self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int, no_repeat_ngram_size: int
    ) -> list[list[int]]:
        self.batches.append(source_ids)
        self.caps.append(max_new_tokens)
        self.ngrams.append(no_repeat_ngram_size)
        return [self.answer(ids)[:max_new_tokens] for ids in source_ids]


class TestEveryEngine:
    def test_translates_what_was_learnt_in_the_order_given(
        self, engine: str, build: Build, tiny_corpus: Corpus, learnt: dict[str, Translation]
    ) -> None:
        shuffled = [source for source, _ in tiny_corpus[::-3] + tiny_corpus[::7]]
        assert build(engine).translate(shuffled, batch_size=16) == [learnt[source] for source in shuffled]

    @pytest.mark.parametrize("batch_size", [2, 5, 32])
    def test_lines_do_not_depend_on_what_shares_their_batch(
        self, batch_size: int, engine: str, build: Build, tiny_corpus: Corpus, odd_sources: list[str], monkeypatch: Any
    ) -> None:
        monkeypatch.setattr("mtdistill.decoding.translator.MAX_RATIO", 1)
        translator = build(engine)
        sources = [*odd_sources[:8], *(source for source, _ in tiny_corpus[:8])]
        one_by_one = [translator.translate([source])[0] for source in sources]
        assert translator.translate(sources, batch_size=batch_size) == one_by_one
        # The caps of a batch differ from those of its lines.
        assert {each.hit_length_cap for each in one_by_one} == {True, False}

    def test_survives_any_text(self, engine: str, build: Build, learnt: dict[str, Translation]) -> None:
        weird = ["", " \u3000\t", "\x00", "猫\udcff", "\u202e\u200d", "👨‍👩‍👧", "a\r\nb", "</s>", "q" * 600]
        known = next(iter(learnt))
        outputs = build(engine).translate([known, *weird, known])
        assert outputs[:3] == [learnt[known], Translation(""), Translation("")]
        assert outputs[-1] == learnt[known]
        assert len(outputs) == len(weird) + 2

    def test_counts_the_tokens_of_its_outputs(self, engine: str, build: Build, odd_sources: list[str]) -> None:
        outputs = build(engine, max_new_tokens=12).translate(odd_sources)
        cut = [output for output in outputs if output.hit_length_cap]
        assert 0 < len(cut) < len(outputs)
        assert all(output.tokens == 12 for output in cut)
        assert all(0 < output.tokens <= 12 for output in outputs)

    def test_stops_at_the_cap(self, engine: str, build: Build, learnt: dict[str, Translation]) -> None:
        source, whole = next(iter(learnt.items()))
        # The last token is the end mark, the one before it the full stop.
        for limit, expected in (
            (whole.tokens, whole),
            (whole.tokens - 1, Translation(whole.text, hit_length_cap=True, tokens=whole.tokens - 1)),
            (whole.tokens - 2, Translation(whole.text[:-1], hit_length_cap=True, tokens=whole.tokens - 2)),
        ):
            assert build(engine, max_new_tokens=limit).translate([source]) == [expected]
            assert build(engine, max_new_tokens=limit).translate([source], beam_size=3)[0].tokens <= limit

    def test_reads_a_long_source_to_its_end(self, engine: str, build: Build) -> None:
        # CTranslate2 by itself drops what follows the first 1024 tokens.
        source = "q" * 1100 + "老师" * 500
        whole, cut = build(engine).translate([source, source[:1024]])
        assert whole != cut
        assert whole == build("PyTorch").translate([source])[0]

    def test_translates_each_sentence_of_a_line_by_itself(
        self, engine: str, build: Build, learnt: dict[str, Translation]
    ) -> None:
        (one, first), (two, second), *_ = list(learnt.items())[::40]
        both = Translation(f"{first.text} {second.text}", tokens=first.tokens + second.tokens)
        assert build(engine).translate([one + two, "", two]) == [both, Translation(""), second]

    def test_is_given_the_beam_size(self, engine: str, build: Build, odd_sources: list[str]) -> None:
        translator = build(engine)
        assert translator.translate(odd_sources, beam_size=1) != translator.translate(odd_sources, beam_size=4)


@pytest.mark.parametrize("other", ["CTranslate2", "ONNX Runtime"])
def test_the_engines_agree(other: str, build: Build, tiny_corpus: Corpus, odd_sources: list[str]) -> None:
    sources = [source for source, _ in tiny_corpus[:60]] + odd_sources
    outputs = {
        (engine, beam_size): build(engine).translate(sources, beam_size=beam_size)
        for engine in ("PyTorch", other)
        for beam_size in (1, 4)
    }
    texts = [translation.text for translation in outputs["PyTorch", 1]]
    assert len(set(texts)) > 70  # a model that says the same to everything would agree with anything
    assert outputs["PyTorch", 1] == outputs[other, 1]
    # Where the beams differ, it is the order of hypotheses whose scores are equal to the last digits.
    same = sum(a == b for a, b in zip(outputs["PyTorch", 4], outputs[other, 4], strict=True))
    assert same >= 0.95 * len(sources)


class TestSources:
    def test_empty_lines_never_reach_the_engine(self, tiny_tokenizer: Any) -> None:
        translator = Scripted(tiny_tokenizer, lambda ids: ids)
        assert translator.translate(["", " \t\u3000\n"]) == [Translation("")] * 2
        assert [each.text for each in translator.translate(["", "猫", " ", "狗狗"])] == ["", "猫", "", "狗狗"]
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


class TestSecondTry:
    """A line that loops or does not end is translated again without repetitions."""

    @pytest.fixture
    def stutters(self, tiny_tokenizer: Any) -> Scripted:
        """Loops at a cat, does not end at a dog; both only where it may repeat itself."""
        first = {"猫": "the the the the the the", "狗": "a dog." * 99}
        second = {"猫": "a cat.", "狗": "a dog."}

        class Stutters(Scripted):
            def _generate(
                self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int, no_repeat_ngram_size: int
            ) -> list[list[int]]:
                super()._generate(source_ids, beam_size, max_new_tokens, no_repeat_ngram_size)
                said = second if no_repeat_ngram_size else first
                sources = tiny_tokenizer.batch_decode(source_ids, skip_special_tokens=True)
                outputs = tiny_tokenizer([said.get(source, "no.") for source in sources])["input_ids"]
                return [ids[:max_new_tokens] for ids in outputs]

        return Stutters(tiny_tokenizer, lambda ids: ids)

    def test_replaces_what_fails_and_nothing_else(self, stutters: Scripted) -> None:
        cat, well, nothing, dog = stutters.translate(["猫", "好", "", "狗"])
        assert (cat.text, cat.hit_length_cap, cat.second_try) == ("a cat.", False, True)
        assert (dog.text, dog.hit_length_cap, dog.second_try) == ("a dog.", False, True)
        assert (well.text, well.second_try) == ("no.", False)
        assert nothing == Translation("")
        assert [len(batch) for batch in stutters.batches] == [3, 2]
        assert stutters.ngrams == [0, 3]

    def test_is_made_of_a_sentence_not_of_its_line(self, stutters: Scripted) -> None:
        [line] = stutters.translate(["好。猫"])
        assert (line.text, line.hit_length_cap, line.second_try) == ("no. a cat.", False, True)
        assert [len(batch) for batch in stutters.batches] == [2, 1]

    def test_can_be_left_out(self, stutters: Scripted) -> None:
        cat, dog = stutters.translate(["猫", "狗"], second_try=False)
        assert cat.text.startswith("the the the")
        assert dog.hit_length_cap
        assert stutters.ngrams == [0]

    def test_that_is_no_better_changes_nothing(self, tiny_tokenizer: Any) -> None:
        endless = Scripted(tiny_tokenizer, lambda ids: [ids[0]] * 1000)
        assert endless.translate(["q"]) == endless.translate(["q"], second_try=False)
        assert endless.ngrams == [0, 3, 0]

    def test_is_not_made_of_what_is_no_sentence(self, tiny_tokenizer: Any) -> None:
        endless = Scripted(tiny_tokenizer, lambda ids: [ids[0]] * 1000)
        endless.translate(["猫" * 2048])
        endless.translate(["猫" * 2049])
        assert endless.ngrams == [0, 3, 0]

    @pytest.mark.parametrize("beam_size", [1, 3])
    def test_never_says_three_tokens_twice(
        self, beam_size: int, endless: Translator, odd_sources: list[str], tiny_tokenizer: Any
    ) -> None:
        sources = tiny_tokenizer(odd_sources)["input_ids"]
        for ngram in (0, 3):
            outputs = [endless._generate([ids], beam_size, 40, ngram)[0] for ids in sources]
            triples = [list(zip(ids, ids[1:], ids[2:], strict=False)) for ids in outputs]
            repeats = [len(each) - len({*each}) for each in triples]
            assert (max(repeats) == 0) is (ngram == 3)


def test_a_tokenizer_that_somebody_pads_with(tiny_tokenizer: Any) -> None:
    seen: list[list[int]] = []

    def generate(ids: list[int]) -> list[int]:
        seen.append(ids)
        return ids

    sources = ["猫" * 30, "他喜欢", "猫"]
    tiny_tokenizer(sources, padding=True, truncation=True, max_length=5)
    Scripted(tiny_tokenizer, generate).translate(sources, second_try=False)
    assert sorted(seen) == sorted(tiny_tokenizer(sources)["input_ids"])
    assert max(map(len, seen)) > 5 > min(map(len, seen))


class TestLengthCap:
    def test_three_times_the_source_and_ten_up_to_the_limit(self, tiny_tokenizer: Any) -> None:
        endless = Scripted(tiny_tokenizer, lambda ids: [ids[0]] * 1000, max_new_tokens=40)
        for source in ("q" * 4, "q" * 8, "q" * 100):
            endless.translate([source], second_try=False)
        tokens = [len(tiny_tokenizer(source)["input_ids"]) for source in ("q" * 4, "q" * 8)]
        assert endless.caps == [3 * tokens[0] + 10, 3 * tokens[1] + 10, 40]

    def test_an_unfinished_line_is_cut_at_its_own_cap_and_says_so(self, tiny_tokenizer: Any) -> None:
        [piece] = tiny_tokenizer.convert_tokens_to_ids(["q"])
        endless = Scripted(tiny_tokenizer, lambda ids: [piece] * 1000)
        short, long = endless.translate(["猫", "猫" * 30])
        tokens = [len(tiny_tokenizer(source)["input_ids"]) for source in ("猫", "猫" * 30)]
        caps = [3 * count + 10 for count in tokens]
        assert short == Translation("q" * caps[0], hit_length_cap=True, tokens=caps[0])
        [line] = endless.translate(["猫。" + "猫" * 30])
        assert line.hit_length_cap
        assert long == Translation("q" * caps[1], hit_length_cap=True, tokens=caps[1])

    @pytest.mark.parametrize(("beyond", "hit"), [(0, False), (1, True)])
    def test_the_end_mark_counts(self, beyond: int, hit: bool, tiny_tokenizer: Any) -> None:
        [piece] = tiny_tokenizer.convert_tokens_to_ids(["q"])
        cap = 3 * len(tiny_tokenizer("猫")["input_ids"]) + 10
        translator = Scripted(tiny_tokenizer, lambda _ids: [piece] * (cap - 1 + beyond) + [tiny_tokenizer.eos_token_id])
        assert translator.translate(["猫"])[0].hit_length_cap is hit
