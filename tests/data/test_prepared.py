"""Prepared once, found again under a name that says what it depends on, and without leakage."""

import dataclasses
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import PreTrainedTokenizerFast

from mtdistill.config import DataConfig
from mtdistill.data import prepared, splitting
from mtdistill.data.prepared import EvaluationSet, PreparedData, languages_of, prepare_data, tokenizer_fingerprint
from mtdistill.data.rows import FEATURES, save_rows
from mtdistill.data.tokenizer import train_tokenizer
from mtdistill.errors import DataError, LeakageError
from mtdistill.text import match_key

Corpus = list[tuple[str, str]]
MakeConfig = Callable[..., DataConfig]
SPLITS = ("train", "validation", "test")


@pytest.fixture
def prepare(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[[DataConfig], PreparedData]:
    return lambda config: prepare_data(config, tmp_path / "data", tiny_tokenizer)


@pytest.fixture
def identity_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """The name of the folder that would be written, without the work."""

    class StopHereError(Exception):
        pass

    def identity(config: DataConfig, tokenizer: PreTrainedTokenizerFast | None) -> str:
        named: list[Path] = []

        def stop(folder: Path) -> Any:
            named.append(folder)
            raise StopHereError

        with monkeypatch.context() as patch:
            patch.setattr(prepared, "replacing_folder", stop)
            with pytest.raises(StopHereError):
                prepare_data(config, tmp_path / "nowhere", tokenizer)
        return named[0].name

    return identity


def texts(data: PreparedData, split: str) -> Corpus:
    return [(row["source"], row["target"]) for row in data.split(split)]


def sentences(pairs: Corpus) -> set[str]:
    return {match_key(text) for pair in pairs for text in pair}


class TestFromTextToIds:
    def test_every_pair_is_in_one_split_with_its_ids(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], tiny_corpus: Corpus,
        tiny_tokenizer: PreTrainedTokenizerFast,
    ) -> None:  # fmt: skip
        data = prepare(make_config())
        assert sorted(pair for split in SPLITS for pair in texts(data, split)) == sorted(tiny_corpus)
        for split in SPLITS:
            rows = data.split(split)
            assert len(rows) == data.manifest.sizes[split] > 0
            for row in rows:
                for side in ("source", "target"):
                    ids = tiny_tokenizer(row[side])["input_ids"]
                    assert row[f"{side}_ids"] == ids
                    assert row[f"{side}_tokens"] == len(ids)
                    assert ids[-1] == tiny_tokenizer.eos_token_id

    def test_the_manifest(self, make_config: MakeConfig, prepare: Callable[..., PreparedData], tmp_path: Path) -> None:
        train = tmp_path / "train.tsv"
        train.write_text(train.read_text() + "猫\t猫\n他\tEr\n他\tEr\n")
        data = prepare(make_config())
        manifest = data.manifest
        assert (manifest.read, manifest.kept) == (203, 201)
        assert manifest.dropped == {"copy": 1, "duplicate": 1}
        assert sum(manifest.sizes.values()) == 201
        assert (manifest.leaked, manifest.removed_from_training) == (0, 0)
        assert (data.source_lang, data.target_lang) == ("zh", "en")
        assert manifest.identity == data.folder.name
        assert json.loads((data.folder / "manifest.json").read_text()) == dataclasses.asdict(manifest)

    def test_the_tokenizer_travels_along(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], tiny_tokenizer: PreTrainedTokenizerFast
    ) -> None:
        assert tokenizer_fingerprint(prepare(make_config()).tokenizer) == tokenizer_fingerprint(tiny_tokenizer)

    def test_a_vocabulary_is_learnt_from_the_training_split_only(
        self, make_config: MakeConfig, write_tsv: Callable[..., str], tmp_path: Path
    ) -> None:
        """Words of the held-out text alone must not get pieces of their own."""
        held_out = [(f"乌龟{index}", f"tortoise number {index}") for index in range(50)]
        config = make_config(validation=(write_tsv("v.tsv", held_out),), test=(write_tsv("t.tsv", held_out),))
        tokenizer = prepare_data(config, tmp_path / "data").tokenizer
        assert len(tokenizer) == 400
        # Learnt from everything, it would be fewer.
        assert len(tokenizer.tokenize("tortoise")) >= len("tortoise")
        assert len(tokenizer.tokenize("teacher")) < len("teacher")

    def test_nothing_is_shown_but_what_is_reported(
        self, make_config: MakeConfig, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        lines: list[str] = []
        config = make_config()
        prepare_data(config, tmp_path / "data", tiny_tokenizer, lines.append)
        assert lines == [f"reading and cleaning: {config.train[0]}", *(f"tokenising: {split}" for split in SPLITS)]
        assert capfd.readouterr() == ("", "")


class TestIdentity:
    CHANGES = (
        {"extra": True},
        {"validation": True},
        {"test": True},
        {"source_lang": "ja"},
        {"target_lang": "de"},
        {"validation_ratio": 0.11},
        {"test_ratio": 0.11},
        {"cleaning": ("empty",)},
    )

    @pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: next(iter(changes)))
    def test_every_setting_changes_it(
        self, make_config: MakeConfig, identity_of: Callable[..., str], write_tsv: Callable[..., str],
        tiny_tokenizer: PreTrainedTokenizerFast, changes: dict[str, Any],
    ) -> None:  # fmt: skip
        if True in changes.values():
            changes = {name: (write_tsv("more.tsv", [("一", "one")]),) for name in changes}
        same = identity_of(make_config(), tiny_tokenizer)
        assert identity_of(make_config(), tiny_tokenizer) == same
        assert identity_of(make_config(**changes), tiny_tokenizer) != same

    def test_no_setting_was_forgotten_here(self) -> None:
        tested = {name for changes in self.CHANGES for name in changes}
        assert {*DataConfig.model_fields} - tested == {"train", "vocabulary_size", "character_coverage"}

    @pytest.mark.parametrize("role", ["train", "extra", "validation", "test"])
    def test_every_file_changes_it(
        self, make_config: MakeConfig, identity_of: Callable[..., str], write_tsv: Callable[..., str],
        tiny_tokenizer: PreTrainedTokenizerFast, role: str,
    ) -> None:  # fmt: skip
        config = make_config(**{role: (write_tsv("more.tsv", [("一", "one")]),)})
        before = identity_of(config, tiny_tokenizer)
        write_tsv("more.tsv", [("一", "two")])
        assert identity_of(config, tiny_tokenizer) != before

    def test_the_tokenizer_changes_it(
        self, make_config: MakeConfig, identity_of: Callable[..., str], tiny_corpus: Corpus,
        tiny_tokenizer: PreTrainedTokenizerFast,
    ) -> None:  # fmt: skip
        lines = [text for pair in tiny_corpus for text in pair]
        tokenizers = [tiny_tokenizer, train_tokenizer(lines, 401, 1.0), None]
        assert len({identity_of(make_config(), tokenizer) for tokenizer in tokenizers}) == 3

    @pytest.mark.parametrize(
        ("changes", "matters"),
        [({}, False), ({"vocabulary_size": 401}, True), ({"character_coverage": 0.99}, True)],
        ids=["nothing", "vocabulary_size", "character_coverage"],
    )
    def test_the_vocabulary_matters_where_one_is_learnt(
        self, make_config: MakeConfig, identity_of: Callable[..., str], tiny_tokenizer: PreTrainedTokenizerFast,
        changes: dict[str, Any], matters: bool,
    ) -> None:  # fmt: skip
        changed = make_config(**changes)
        assert (identity_of(changed, None) != identity_of(make_config(), None)) is matters
        assert identity_of(changed, tiny_tokenizer) == identity_of(make_config(), tiny_tokenizer)

    def test_use_of_the_tokenizer_does_not_change_it(self, tiny_corpus: Corpus) -> None:
        tokenizer = train_tokenizer([text for pair in tiny_corpus for text in pair], 400, 1.0)
        before = tokenizer_fingerprint(tokenizer)
        tokenizer(["a", "a b c d"], padding=True, truncation=True, max_length=3)
        assert tokenizer_fingerprint(tokenizer) == before
        assert tokenizer(["a", "a b"], padding=True)["attention_mask"][0][-1] == 0  # and it does not change the use


class TestReuse:
    def test_a_second_call_finds_the_first(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = prepare(make_config())
        monkeypatch.delattr(prepared, "split_text")
        second = prepare(make_config())
        assert second.folder == first.folder
        assert second.manifest == first.manifest

    @pytest.mark.parametrize("step", ["split_text", "tokenised_rows", "write_atomically"])
    def test_an_interruption_leaves_nothing(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path, step: str,
    ) -> None:  # fmt: skip
        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(prepared, step, interrupt)
            with pytest.raises(KeyboardInterrupt):
                prepare(make_config())
        assert [path for path in (tmp_path / "data").iterdir() if path.suffix != ".lock"] == []
        assert len(prepare(make_config()).split("test")) > 0

    def test_the_remains_of_a_kill_are_removed(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], tmp_path: Path
    ) -> None:
        name = prepare(make_config()).folder.name
        shutil.rmtree(tmp_path / "data" / name)
        of_it, of_another = (tmp_path / "data" / f".{of}.abcdefgh.part" for of in (name, "another"))
        for folder in (of_it, of_another):
            folder.mkdir()
        prepare(make_config())
        assert not of_it.exists()
        assert of_another.exists()

    def test_two_at_once_make_it_once(
        self, make_config: MakeConfig, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        config, root, lines, made = make_config(), tmp_path / "data", list[str](), list[Path]()
        first_is_at_it, second_waits = threading.Event(), threading.Event()
        tokenise = prepared.tokenised_rows

        def slow(*arguments: Any) -> datasets.Dataset:
            first_is_at_it.set()
            assert second_waits.wait(60)
            return tokenise(*arguments)

        def said(line: str) -> None:
            lines.append(line)
            second_waits.set()

        monkeypatch.setattr(prepared, "tokenised_rows", slow)
        beside = threading.Thread(target=lambda: made.append(prepare_data(config, root, tiny_tokenizer).folder))
        beside.start()
        assert first_is_at_it.wait(60)
        data = prepare_data(config, root, tiny_tokenizer, said)
        beside.join()
        assert made == [data.folder]
        assert len(lines) == 1
        assert "another run prepares the same text" in lines[0]

    def test_a_killed_preparation_is_not_taken_for_a_whole_one(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = prepare(make_config()).folder
        (folder / "manifest.json").unlink()
        (folder / "leftover").touch()
        assert prepare(make_config()).folder == folder
        assert not (folder / "leftover").exists()

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"identity": 1, "new_field": 2}'])
    def test_a_damaged_manifest_is_named(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(DataError, match=rf"could not be read: got {tmp_path} .*Delete it and run again"):
            PreparedData(tmp_path)

    def test_no_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="could not be read"):
            PreparedData(tmp_path / "nowhere")

    def test_a_flipped_bit_anywhere_is_found(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData]
    ) -> None:
        folder = prepare(make_config()).folder
        files = [path for path in sorted(folder.glob("*/*")) if path.is_file()]
        assert {path.relative_to(folder).as_posix() for path in files} == PreparedData(folder).manifest.sha256.keys()
        for path in files:
            whole, data = path.read_bytes(), PreparedData(folder)
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            with pytest.raises(DataError, match=rf"could not be read: got {folder} .*{path.parent.name}/{path.name}"):
                data.tokenizer if path.parent.name == "tokenizer" else data.split(path.parent.name)
            path.write_bytes(whole)

    @pytest.mark.parametrize("damage", ["ids", "state", "cut"])
    def test_data_without_checksums_is_read_and_looked_at(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], damage: str
    ) -> None:
        folder = prepare(make_config()).folder
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["sha256"]  # as older versions wrote it
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert len(PreparedData(folder).split("test")) == manifest["sizes"]["test"]
        [file] = (folder / "test").glob("*.arrow")
        if damage == "ids":  # of no piece
            rows = PreparedData(folder).split("test").to_dict()
            rows["target_ids"] = [[10**6] * length for length in rows["target_tokens"]]
            shutil.rmtree(folder / "test")
            save_rows(datasets.Dataset.from_dict(rows, features=FEATURES), folder / "test")
        elif damage == "state":
            (folder / "test" / "state.json").write_text("[]")
        else:
            file.write_bytes(file.read_bytes()[:-500])
        with pytest.raises(DataError, match=rf"could not be read: got {folder}"):
            PreparedData(folder).split("test")


class TestSplits:
    def test_no_sentence_of_training_is_held_out(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], write_tsv: Callable[..., str]
    ) -> None:
        """Looked for in the text itself, without the hashes that the splits are made with."""
        tangled = [(f"句子{index % 70}。", f"Sentence {index % 110}!") for index in range(150)]
        tangled += [(f"单独{index}", f"Alone {index}") for index in range(50)]
        extra = [(f"单独{index}！", f"only one side {index}") for index in range(0, 50, 3)]
        config = make_config(train=(write_tsv("t.tsv", tangled),), extra=(write_tsv("e.tsv", extra),),
                             validation_ratio=0.3, test_ratio=0.3)  # fmt: skip
        data = prepare(config)
        training = sentences(texts(data, "train"))
        for split in ("validation", "test"):
            assert len(data.split(split)) > 5
            assert training.isdisjoint(sentences(texts(data, split)))
        assert sentences(texts(data, "validation")).isdisjoint(sentences(texts(data, "test")))
        assert 0 < data.manifest.removed_from_training < len(extra)

    def test_files_of_the_users_own(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], write_tsv: Callable[..., str],
        tiny_corpus: Corpus,
    ) -> None:  # fmt: skip
        # Not cleaned: a pair that a rule would drop, and one that stands there twice.
        validation = [*tiny_corpus[:3], ("猫", "猫"), tiny_corpus[0]]
        test = [(tiny_corpus[9][0].replace("。", "!"), "something else"), ("空", "")]
        data = prepare(make_config(validation=(write_tsv("v.tsv", validation),), test=(write_tsv("t.tsv", test),)))
        assert texts(data, "validation") == validation
        assert texts(data, "test") == test[:1]
        # What stands there is taken out of training, and nothing else.
        assert texts(data, "train") == [pair for i, pair in enumerate(tiny_corpus) if i not in (0, 1, 2, 9)]
        assert data.manifest.removed_from_training == 4
        assert data.manifest.leaked == 0

    def test_one_file_of_the_users_own_leaves_the_other_split(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], write_tsv: Callable[..., str],
        tiny_corpus: Corpus,
    ) -> None:  # fmt: skip
        data = prepare(make_config(test=(write_tsv("t.tsv", [("新", "new")]),)))
        assert texts(data, "test") == [("新", "new")]
        assert sorted(texts(data, "train") + texts(data, "validation")) == sorted(tiny_corpus)
        assert 5 < len(data.split("validation")) < 40

    def test_extra_pairs_are_for_training_only(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], write_tsv: Callable[..., str]
    ) -> None:
        plain = prepare(make_config())
        leaking = texts(plain, "test")[0]
        extra = [("苹果", "apple"), leaking, (leaking[0], "another translation"), ("苹果", "苹果"), ("梨", "pear")]
        data = prepare(make_config(extra=(write_tsv("extra.tsv", extra),)))
        assert texts(data, "train") == [*texts(plain, "train"), ("苹果", "apple"), ("梨", "pear")]
        assert texts(data, "validation") == texts(plain, "validation")
        assert texts(data, "test") == texts(plain, "test")
        assert data.manifest.removed_from_training == 2
        assert data.manifest.read == 200  # of the corpus itself

    def test_leakage_is_found_in_the_text(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], write_tsv: Callable[..., str],
        monkeypatch: pytest.MonkeyPatch, tiny_corpus: Corpus, tmp_path: Path,
    ) -> None:  # fmt: skip
        shared_with = splitting.shared_with
        calls = iter([lambda keys, _: shared_with(keys, keys[:0]), shared_with])
        monkeypatch.setattr(splitting, "shared_with", lambda *keys: next(calls)(*keys))
        with pytest.raises(LeakageError, match="held-out sentences stand in training: got 3, accepted 0"):
            prepare(make_config(validation=(write_tsv("v.tsv", tiny_corpus[:3]),)))
        assert [path for path in (tmp_path / "data").iterdir() if path.suffix != ".lock"] == []

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"validation_ratio": 1e-9}, r"the validation split is empty: got 200 usable pairs of 200 \(dropped: -\)"),
            (
                {"test": ("t.tsv", [("空", "")])},
                r"the test split is empty: got 0 usable pairs of 1 \(dropped: empty 1\)",
            ),
            (
                {"train": ("t.tsv", [("a", "b"), ("c", "d")])},
                r"train split .* got 0 .* of 2 \(dropped: wrong_script 2\)",
            ),
        ],
    )
    def test_an_empty_split(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], write_tsv: Callable[..., str],
        changes: dict[str, Any], match: str,
    ) -> None:  # fmt: skip
        written = {name: (write_tsv(*value),) if isinstance(value, tuple) else value for name, value in changes.items()}
        if "train" in changes:
            own = [("新", "new")]
            written |= {"validation": (write_tsv("v.tsv", own),), "test": (write_tsv("s.tsv", own),)}
        with pytest.raises(DataError, match=match):
            prepare(make_config(**written))

    def test_text_larger_than_a_block(
        self, make_config: MakeConfig, prepare: Callable[..., PreparedData], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = prepare(make_config())
        expected = {split: texts(whole, split) for split in SPLITS}
        (whole.folder / "manifest.json").unlink()
        monkeypatch.setattr(splitting, "_BLOCK_PAIRS", 7)
        assert {split: texts(prepare(make_config()), split) for split in SPLITS} == expected


def test_an_evaluation_set_groups_all_references(
    make_config: MakeConfig, prepare: Callable[..., PreparedData], write_tsv: Callable[..., str]
) -> None:
    test = [("甲", "a"), ("乙", "b"), ("甲", "A"), ("丙", "c"), ("甲", "a!"), ("乙", "b")]
    data = prepare(make_config(test=(write_tsv("t.tsv", test),)))
    whole = data.evaluation_set("test")
    assert whole == EvaluationSet(["甲", "乙", "丙"], [["a", "A", "a!"], ["b", "b"], ["c"]])
    assert len(whole) == 3
    # A limit leaves out sources, never references.
    assert data.evaluation_set("test", 2) == EvaluationSet(["甲", "乙"], [["a", "A", "a!"], ["b", "b"]])


class TestLanguages:
    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"train": ("tatoeba:zh-en",)}, ("zh", "en")),
            ({"train": ("tatoeba:en-zh",)}, ("en", "zh")),
            ({"train": ("tatoeba:zh-en",), "source_lang": "zh-Hans", "target_lang": "en_GB"}, ("zh-Hans", "en_GB")),
            ({"train": ("a.tsv",), "extra": ("cedict:zh-en",)}, ("zh", "en")),
            ({"train": ("a.tsv",), "source_lang": "de", "target_lang": "fr"}, ("de", "fr")),
        ],
    )
    def test_configured_or_those_of_the_corpus(self, settings: dict[str, Any], expected: tuple[str, str]) -> None:
        assert languages_of(DataConfig.model_validate(settings)) == expected

    def test_unknown(self) -> None:
        with pytest.raises(DataError, match="languages are not known: got source None, target None"):
            languages_of(DataConfig(train=("a.tsv",)))

    @pytest.mark.parametrize(
        "settings",
        [
            {"train": ("tatoeba:zh-en",), "source_lang": "en", "target_lang": "zh"},
            {"train": ("tatoeba:zh-en", "tatoeba:en-zh")},
            {"train": ("tatoeba:en-zh",), "extra": ("cedict:zh-en",)},
        ],
    )
    def test_a_corpus_of_another_direction(self, settings: dict[str, Any]) -> None:
        with pytest.raises(DataError, match="built-in corpus has another direction: got "):
            languages_of(DataConfig.model_validate(settings))
