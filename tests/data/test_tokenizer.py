import copy
import itertools
import json
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mtdistill.data.tokenizer import (
    EOS,
    EOS_ID,
    PAD,
    PAD_ID,
    UNK,
    UNK_ID,
    load_tokenizer,
    serve_pieces,
    train_tokenizer,
)
from mtdistill.errors import DataError
from mtdistill.messages import set_language
from mtdistill.text import normalise

WORD = "▁"  # U+2581, what SentencePiece writes a space as
FOREIGN = {
    "emoji": "好😀👩‍👩‍👧🇨🇳!",
    "rare Han": "𠮷野家𪚥㐀",
    "Cyrillic": "привет мир",
    "combining": "a\u0301\u0323 e\u0308",
    "zero width": "a\u200bb\u200dc\ufeffd",
    "control": "\x00\x01\x7f",
    "private and unassigned": "\ue000\U000e0fff\U0010ffff",
    "like an end of sentence": "</s> a</s>b",
    "like padding": "<pad><pad>",
    "like an unknown": "<unk>",
    "like bytes": "<0x41><0xFF> A<0x0A>B",
    "like extra ids": "<extra_id_0>",
    "special tokens of ours": f"{PAD}a{EOS} b {UNK}",
    "full width": "＜／ｓ＞ ＡＢＣ１２３",
    "spaces": "  a \t b\u3000\u00a0c\u2028d \n",
    "nothing": "",
    "long": "ab你 " * 400,
}


def pieces_of(tokenizer: PreTrainedTokenizerFast) -> list[tuple[str, float]]:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return [(piece, score) for piece, score in model["vocab"]]


@pytest.fixture(scope="module")
def reference(lines: list[str]) -> sentencepiece.SentencePieceProcessor:
    """SentencePiece itself, with the model that it learns for a tokenizer of ours."""
    train, models = sentencepiece.SentencePieceTrainer.train, []

    def train_and_tell(**options: object) -> None:
        train(**options)
        models.append(options["model_writer"].getvalue())  # type: ignore[attr-defined]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentencepiece.SentencePieceTrainer, "train", train_and_tell)
        train_tokenizer(lines, 400, 1.0)
    return sentencepiece.SentencePieceProcessor(model_proto=models[0])


@pytest.fixture(scope="module")
def lines(tiny_corpus: list[tuple[str, str]]) -> list[str]:
    return [line for pair in tiny_corpus for line in pair]


def test_the_vocabulary_has_the_wanted_size_and_order(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = [piece for piece, _ in pieces_of(tiny_tokenizer)]
    assert len(tiny_tokenizer) == tiny_tokenizer.vocab_size == len(pieces) == len(set(pieces)) == 400
    assert pieces[:259] == [PAD, EOS, UNK, *(f"<0x{byte:02X}>" for byte in range(256))]
    assert [tiny_tokenizer.pad_token_id, tiny_tokenizer.eos_token_id, tiny_tokenizer.unk_token_id] == [0, 1, 2]
    assert (PAD_ID, EOS_ID, UNK_ID) == (0, 1, 2)


def test_the_pieces_and_scores_are_those_sentencepiece_learnt(
    tiny_tokenizer: PreTrainedTokenizerFast, reference: sentencepiece.SentencePieceProcessor
) -> None:
    for row, (piece, score) in enumerate(pieces_of(tiny_tokenizer)):
        assert piece == reference.id_to_piece(row)
        assert score == pytest.approx(-1000 if reference.is_byte(row) else reference.get_score(row))


def test_every_printable_ascii_character_is_a_piece(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    assert {chr(code) for code in range(0x21, 0x7F)} <= {piece for piece, _ in pieces_of(tiny_tokenizer)}


def test_normalised_text_cannot_hold_a_special_token() -> None:
    assert not {PAD, EOS, UNK} & {normalise(token, "en") for token in (PAD, EOS, UNK)}


def test_pieces_are_learnt_from_the_text_as_it_is(lines: list[str]) -> None:
    pieces = [piece for piece, _ in pieces_of(train_tokenizer([*lines, "É"], 400, 1.0))]
    assert [piece for piece in pieces if "É" in piece]


def test_text_of_the_corpus_comes_back(tiny_tokenizer: PreTrainedTokenizerFast, lines: list[str]) -> None:
    texts = [normalise(line, "zh") for line in lines]
    ids = tiny_tokenizer(texts)["input_ids"]
    assert tiny_tokenizer.batch_decode(ids, skip_special_tokens=True) == texts
    assert [piece for piece, _ in pieces_of(tiny_tokenizer) if "喜欢" in piece]  # it has learnt words, not letters


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_any_other_text_comes_back_as_well(tiny_tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    text = normalise(text, "en")
    ids = tiny_tokenizer(text)["input_ids"]
    assert tiny_tokenizer.decode(ids, skip_special_tokens=True) == text
    assert ids[-1] == EOS_ID
    assert not {PAD_ID, EOS_ID, UNK_ID} & set(ids[:-1])


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_ids_of_other_text_are_those_of_sentencepiece(
    tiny_tokenizer: PreTrainedTokenizerFast, reference: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    text = normalise(text, "en")
    assert tiny_tokenizer(text)["input_ids"] == [*reference.encode(text), EOS_ID]


def test_ids_of_the_corpus_are_those_of_sentencepiece(
    tiny_tokenizer: PreTrainedTokenizerFast, reference: sentencepiece.SentencePieceProcessor, lines: list[str]
) -> None:
    texts = [normalise(line, "zh") for line in lines]
    assert tiny_tokenizer(texts)["input_ids"] == [[*ids, EOS_ID] for ids in reference.encode(texts)]


words = st.text(alphabet=st.characters(codec="utf-8", exclude_characters=WORD), max_size=20)
corpus_like = st.lists(
    st.sampled_from(["他", "喜欢", "Tom", "likes", " ", "the", "ea", "</s>", "é", "。"]), max_size=20
)


@given(words | corpus_like.map("".join))
@example("</s>")
def test_any_text_is_encoded_like_sentencepiece_without_unknowns(
    tiny_tokenizer: PreTrainedTokenizerFast, reference: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    text = normalise(text, "en")
    ids = tiny_tokenizer(text)["input_ids"]
    assert ids == [*reference.encode(text), EOS_ID]
    assert UNK_ID not in ids
    assert tiny_tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_one_character_that_is_lost_is_the_one_sentencepiece_writes_a_space_as(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert tiny_tokenizer.decode(tiny_tokenizer(f"a{WORD}b")["input_ids"], skip_special_tokens=True) == "a b"


@given(st.lists(st.integers(0, 399), max_size=20))
def test_any_ids_can_be_shown(tiny_tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> None:
    tiny_tokenizer.decode(ids, skip_special_tokens=True).encode("utf-8")


@given(words)
@example("\u3000ＡＢ \t\n ﬁ\u00a0")
def test_normalising_is_built_in(tiny_tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assume(not set(text) & {*"\x1c\x1d\x1e\x1f", *PAD})  # spaces to Python only; brackets that open our tokens
    nfkc = normalizers.NFKC()  # of an older Unicode than Python's: 72 characters differ
    assume(all(nfkc.normalize_str(character) == unicodedata.normalize("NFKC", character) for character in text))
    assert tiny_tokenizer(text)["input_ids"] == tiny_tokenizer(normalise(text, "en"))["input_ids"]


def best_score(word: str, scores: dict[str, float]) -> float:
    """Of all ways to write a word as a row of pieces, the highest sum of scores."""
    if not word:
        return 0.0
    heads = (word[:length] for length in range(1, len(word) + 1))
    return max(scores[head] + best_score(word[len(head) :], scores) for head in heads if head in scores)


def test_the_best_segmentation_is_found_where_pieces_overlap() -> None:
    random_scores = random.Random(1)
    overlapping = ["".join(letters) for size in (1, 2, 3) for letters in itertools.product("ab", repeat=size)]
    pieces = [(PAD, 0.0), (EOS, 0.0), (UNK, 0.0), *((f"<0x{byte:02X}>", -1000.0) for byte in range(256))]
    pieces += [
        (piece, round(random_scores.uniform(-9, -3), 4)) for piece in [WORD, *overlapping, f"{WORD}a", f"{WORD}ba"]
    ]
    tokenizer = serve_pieces(pieces)
    assert pieces_of(tokenizer) == pieces
    words = ["".join(letters) for size in range(1, 9) for letters in itertools.product("ab", repeat=size)]
    for word, ids in zip(words, tokenizer(words, add_special_tokens=False)["input_ids"], strict=True):
        assert "".join(pieces[piece][0] for piece in ids) == WORD + word
        assert sum(pieces[piece][1] for piece in ids) == pytest.approx(best_score(WORD + word, dict(pieces)))


def test_padding_and_truncation(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)  # which keeps the padding and the truncation of its last call
    long, short = tokenizer(["Tommy", "好"], add_special_tokens=False)["input_ids"]
    assert len(long) > len(short) == 4
    batch = tokenizer(["Tommy", "好"], padding=True, truncation=True, max_length=len(short) + 1)
    assert batch["input_ids"] == [[*long[:4], EOS_ID], [*short, EOS_ID]]
    batch = tokenizer(["Tommy", "好"], padding=True)
    gap = len(long) - len(short)
    assert batch["input_ids"] == [[*long, EOS_ID], [*short, EOS_ID, *[PAD_ID] * gap]]
    assert batch["attention_mask"][1] == [1] * (len(short) + 1) + [0] * gap


def test_a_saved_tokenizer_is_the_same_after_loading(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, lines: list[str]
) -> None:
    tiny_tokenizer.save_pretrained(str(tmp_path))
    texts = [*lines, *FOREIGN.values()]
    expected = tiny_tokenizer(texts)["input_ids"]
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(str(tmp_path))):
        assert loaded.backend_tokenizer.to_str() == tiny_tokenizer.backend_tokenizer.to_str()
        assert loaded(texts)["input_ids"] == expected
        assert (loaded.pad_token, loaded.eos_token, loaded.unk_token) == (PAD, EOS, UNK)
        assert loaded.batch_decode(expected, skip_special_tokens=True) == tiny_tokenizer.batch_decode(
            expected, skip_special_tokens=True
        )


def test_the_same_text_gives_the_same_vocabulary(tiny_tokenizer: PreTrainedTokenizerFast, lines: list[str]) -> None:
    again = train_tokenizer(iter(lines), 400, 1.0)
    assert again.backend_tokenizer.to_str() == tiny_tokenizer.backend_tokenizer.to_str()


@pytest.mark.parametrize(
    ("text", "size", "detail"),
    [
        (["one two"], 400, r"Vocabulary size too high \(400\)\. Please set it to a value <= 354\. Give more text"),
        (["one two"], 300, "300 vs 354"),
        ([], 400, "SentencePiece says: no text. Give more text"),
    ],
    ids=["little text", "small vocabulary", "no text"],
)
def test_text_that_does_not_fill_the_vocabulary(text: list[str], size: int, detail: str) -> None:
    with pytest.raises(DataError, match=detail) as caught:
        train_tokenizer(text, size)
    assert "INTERNAL" not in str(caught.value)


@pytest.mark.parametrize("error", [DataError("could not read a.tsv"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_an_error_of_the_text_itself_is_not_taken_for_one_of_the_vocabulary(error: BaseException) -> None:
    def broken() -> Iterator[str]:
        yield "one"
        raise error

    with pytest.raises(type(error)) as caught:
        train_tokenizer(broken(), 400)
    assert caught.value is error


@pytest.mark.parametrize("damage", ["missing folder", "no tokenizer", "damaged"])
def test_a_tokenizer_that_cannot_be_read(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, damage: str) -> None:
    folder = tmp_path / "model"
    if damage != "missing folder":
        folder.mkdir()
    if damage == "damaged":
        tiny_tokenizer.save_pretrained(str(folder))
        (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    for language, words in (("en", "the tokenizer could not be read: got"), ("zh", "无法读取分词器：得到")):
        set_language(language)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=words) as caught:
            load_tokenizer(folder)
        assert str(folder) in str(caught.value)


def changed(folder: Path, file: str, **changes: Any) -> Path:
    settings = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps({**settings, **changes}), encoding="utf-8")
    return folder


class TestOfStrangers:
    @pytest.fixture
    def folder(self, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
        tiny_tokenizer.save_pretrained(str(tmp_path))
        return tmp_path

    @pytest.mark.parametrize("count", [10**5, 2**62])
    def test_pieces_that_are_to_be_made_up_without_end(self, count: int, folder: Path) -> None:
        changed(folder, "tokenizer_config.json", extra_ids=count)
        with pytest.raises(DataError, match="ValueError"):
            load_tokenizer(folder)

    def test_a_length_may_be_endless(self, folder: Path) -> None:
        load_tokenizer(changed(folder, "tokenizer_config.json", model_max_length=10**30))

    def test_a_file_of_a_size_that_no_tokenizer_has(self, folder: Path) -> None:
        with (folder / "tokenizer.json").open("ab") as stream:
            stream.truncate(2**28)  # takes no disk
        with pytest.raises(DataError, match="ValueError"):
            load_tokenizer(folder)

    @pytest.mark.parametrize(
        "settings",
        [
            {"pad_token": None}, {"eos_token": None}, {"eos_token": "a"}, {"model_max_length": "long"},
        ],
        ids=str,
    )  # fmt: skip
    def test_settings_that_would_fail_at_the_first_sentence(self, settings: dict[str, Any], folder: Path) -> None:
        with pytest.raises(DataError, match="tokenizer could not be read"):
            load_tokenizer(changed(folder, "tokenizer_config.json", **settings))

    def test_an_end_token_with_an_id_of_no_piece(self, folder: Path) -> None:
        processor = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["post_processor"]
        processor["special_tokens"][EOS]["ids"] = [10**6]
        with pytest.raises(DataError, match="tokenizer could not be read"):
            load_tokenizer(changed(folder, "tokenizer.json", post_processor=processor))

    def test_a_library_that_panics(self, folder: Path) -> None:
        """Its exception is none of Python's `Exception`s."""
        decoder = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["decoder"]
        steps = [step for step in decoder["decoders"] if step["type"] not in ("Fuse", "Strip")]
        strip = {"type": "Strip", "content": " ", "start": 0, "stop": 2**32 - 1}
        with pytest.raises(DataError, match="PanicException"):
            load_tokenizer(changed(folder, "tokenizer.json", decoder={**decoder, "decoders": [*steps, strip]}))

    def test_an_interruption_is_none(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(AutoTokenizer, "from_pretrained", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load_tokenizer(folder)
