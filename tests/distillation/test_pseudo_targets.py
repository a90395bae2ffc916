"""Which translation becomes a target, what is left out, and what a kill costs."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sacrebleu

from mtdistill.config import apply_overrides
from mtdistill.data.prepared import EvaluationSet, prepare_data
from mtdistill.data.tokenizer import load_tokenizer
from mtdistill.decoding import Translation
from mtdistill.display import Display
from mtdistill.distillation.candidates import Search, search_for
from mtdistill.distillation.pseudo_targets import make_pseudo_targets, write_pseudo_targets
from mtdistill.errors import ConfigError, DataError

GOLD = "the cat sleeps on the warm roof."
Candidates = dict[str, list[Translation]]


class Teacher:
    """Says what it is told to, and remembers what it was asked."""

    precision = "float32"

    def __init__(self, says: Candidates, dies_after: int = 10**9) -> None:
        self.says, self.dies_after, self.asked = says, dies_after, list[str]()

    def candidates(self, sources: Sequence[str], *, beam_size: int, number: int) -> list[list[Translation]]:
        assert 1 <= number <= beam_size
        if len(self.asked) >= self.dies_after:
            raise KeyboardInterrupt
        self.asked += sources
        return [self.says[source][:number] for source in sources]


def texts(*lines: str) -> list[Translation]:
    return [Translation(line) for line in lines]


def write(teacher: Teacher, gold: dict[str, list[str]], path: Path, search: Search = Search()) -> Any:  # noqa: B008
    sentences = EvaluationSet(list(gold), list(gold.values()))
    return write_pseudo_targets(sentences, teacher, "en", path, search, Display(), teacher="one")  # type: ignore[arg-type]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class TestChoice:
    def test_the_one_closest_to_any_gold_text(self, tmp_path: Path) -> None:
        says = ("a dog barks at night.", "the cat sleeps on the roof.", "cats sleep.", GOLD)
        done = write(Teacher({"猫睡觉。": texts(*says)}), {"猫睡觉。": ["no likeness at all", GOLD]}, tmp_path / "out")
        score = sacrebleu.sentence_chrf(says[1], [GOLD]).score
        assert rows_of(done.path) == [{"source": "猫睡觉。", "target": GOLD, "rank": 3, "chrf": pytest.approx(100)}]
        assert (done.sources, done.written, done.same_as_gold, done.dropped) == (1, 1, 1, {})
        done = write(Teacher({"猫睡觉。": texts(*says[:3])}), {"猫睡觉。": [GOLD]}, tmp_path / "out-2")
        assert rows_of(done.path) == [
            {"source": "猫睡觉。", "target": says[1], "rank": 1, "chrf": pytest.approx(score)}
        ]
        assert (done.same_as_gold, done.mean_chrf) == (0, pytest.approx(score))

    def test_not_one_that_fails_a_check(self, tmp_path: Path) -> None:
        says = [Translation(GOLD, hit_length_cap=True), *texts("the the the the the the", "the cat sleeps.")]
        done = write(Teacher({"猫睡觉。": says}), {"猫睡觉。": [GOLD]}, tmp_path / "out")
        assert [(row["target"], row["rank"]) for row in rows_of(done.path)] == [("the cat sleeps.", 2)]

    def test_the_best_of_the_search_where_there_is_no_gold_text(self, tmp_path: Path) -> None:
        done = write(Teacher({"猫睡觉。": texts("", "the cat sleeps.", GOLD)}), {"猫睡觉。": []}, tmp_path / "out")
        assert rows_of(done.path) == [{"source": "猫睡觉。", "target": "the cat sleeps.", "rank": 1, "chrf": None}]
        assert math.isnan(done.mean_chrf)

    def test_sources_without_a_good_one_are_counted_and_left_out(self, tmp_path: Path) -> None:
        says = {
            "猫睡觉。": texts("", "no no no no no no"),
            "狗跑。": texts("狗在草地上跑。"),
            "鱼游泳。": texts("the fish swims."),
        }
        done = write(Teacher(says), {source: [GOLD] for source in says}, tmp_path / "out")
        assert [row["source"] for row in rows_of(done.path)] == ["鱼游泳。"]
        assert (done.sources, done.written, done.dropped) == (3, 1, {"empty": 1, "wrong_script": 1})

    def test_a_text_that_many_sources_share_is_left_out(self, tmp_path: Path) -> None:
        says = {f"第{number}句话。": texts("i do not know.") for number in range(5)} | {
            "鱼游泳。": texts("the fish swims.")
        }
        done = write(Teacher(says), {source: [] for source in says}, tmp_path / "out")
        assert [row["source"] for row in rows_of(done.path)] == ["鱼游泳。"]
        assert done.dropped == {"same_output": 5}

    def test_several_the_closest_first_and_no_text_twice(self, tmp_path: Path) -> None:
        says = ("a dog barks at night.", "the cat sleeps on the roof.", "", "the cat sleeps on the roof.", GOLD)
        search = Search(beam_size=5, n_best=5, kept=2)
        for gold, expected in (([GOLD], [(GOLD, 4), (says[1], 1)]), ([], [(says[0], 0), (says[1], 1)])):
            path = tmp_path / f"{len(gold)}"
            done = write(
                Teacher({"猫睡觉。": texts(*says), "鱼。": texts("")}), {"猫睡觉。": gold, "鱼。": gold}, path, search
            )
            assert [(row["target"], row["rank"]) for row in rows_of(path)] == expected
            assert (done.sources, done.written, done.dropped) == (2, 2, {"empty": 1})
        write(Teacher({"猫睡觉。": texts(*says)}), {"猫睡觉。": [GOLD]}, tmp_path / "all", Search(5, 5, 5))
        assert [row["rank"] for row in rows_of(tmp_path / "all")] == [4, 1, 0]

    def test_nothing_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no translation of the teacher is fit .*got empty 1,"):
            write(Teacher({"猫": texts("")}), {"猫": [GOLD]}, tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestInterruption:
    SAYS: ClassVar = {f"第{n}句话。": texts(f"this is sentence number {n}.") for n in range(10)}
    GOLD: ClassVar = {source: [GOLD] for source in SAYS}

    @pytest.fixture(autouse=True)
    def small_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mtdistill.distillation.pseudo_targets.CHUNK_SENTENCES", 4)

    @pytest.fixture
    def interrupted(self, tmp_path: Path) -> Path:
        with pytest.raises(KeyboardInterrupt):
            write(Teacher(self.SAYS, dies_after=8), self.GOLD, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return tmp_path / "out"

    def test_only_what_is_missing_is_translated(self, interrupted: Path) -> None:
        teacher = Teacher(self.SAYS)
        done = write(teacher, self.GOLD, interrupted)
        assert teacher.asked == list(self.SAYS)[8:]
        whole = write(Teacher(self.SAYS), self.GOLD, interrupted.with_name("whole"))
        assert done.path.read_bytes() == whole.path.read_bytes()
        assert (done.sources, done.written) == (whole.sources, whole.written) == (10, 10)
        assert {path.name for path in interrupted.parent.iterdir()} == {"out", "whole"}

    @pytest.mark.parametrize(
        "damaged", [b"", b"\xff", b"{", b"[]\n", b'{"source": 1}\n', b'{"source": "x", "target": "y"}\n', b"[" * 10**5]
    )
    def test_a_damaged_part_is_translated_again(self, damaged: bytes, interrupted: Path) -> None:
        first = interrupted.with_name(".out.parts") / "000000000.jsonl"
        whole = first.read_bytes()
        for content in (damaged, whole.splitlines(keepends=True)[0]):
            first.write_bytes(content)
            teacher = Teacher(self.SAYS)
            write(teacher, self.GOLD, interrupted)
            assert teacher.asked == [source for source in self.SAYS if source not in list(self.SAYS)[4:8]]
            interrupted.unlink()
            with pytest.raises(KeyboardInterrupt):
                write(Teacher(self.SAYS, dies_after=8), self.GOLD, interrupted)

    def test_several_translations_of_each(self, tmp_path: Path) -> None:
        says = {source: [*each, *texts("something else.")] for source, each in self.SAYS.items()}
        search = Search(kept=2)
        with pytest.raises(KeyboardInterrupt):
            write(Teacher(says, dies_after=8), self.GOLD, tmp_path / "out", search)
        teacher = Teacher(says)
        write(teacher, self.GOLD, tmp_path / "out", search)
        assert teacher.asked == list(says)[8:]
        whole = write(Teacher(says), self.GOLD, tmp_path / "whole", search)
        assert (tmp_path / "out").read_bytes() == whole.path.read_bytes()

    def test_other_settings_begin_anew(self, interrupted: Path) -> None:
        teacher = Teacher(self.SAYS)
        write(teacher, self.GOLD, interrupted, Search(beam_size=2, n_best=1))
        assert teacher.asked == list(self.SAYS)


def test_a_share_is_drawn_by_the_seed(tmp_path: Path) -> None:
    says = {f"第{n}句话。": texts(f"this is sentence number {n}.") for n in range(40)}

    def drawn(share: float, seed: int) -> list[str]:
        teacher = Teacher(says)
        write(teacher, {source: [] for source in says}, tmp_path / f"{share}-{seed}", Search(share=share, seed=seed))
        return teacher.asked

    first, again, other = drawn(0.25, 1), drawn(0.251, 1), drawn(0.25, 2)
    assert first == again != other
    assert len(first) == len(other) == 10
    assert first == sorted(first, key=list(says).index)
    assert drawn(1.0, 1) == list(says)


class TestWithATeacher:
    def test_its_file_is_more_text_to_train_on(self, make_run: Any, tmp_path: Path) -> None:
        config = make_run(tmp_path)
        done = make_pseudo_targets(config, tmp_path / "pseudo.jsonl", Search(beam_size=3, n_best=2))
        assert done.written == done.sources - sum(done.dropped.values()) > 100
        assert done.same_as_gold > done.written / 2  # which this teacher knows by heart

        more = apply_overrides(config, [f"data.extra={done.path}", "data.cleaning=[]"]).data
        tokenizer = load_tokenizer(Path(config.teacher.path))
        alone, both = (prepare_data(data, tmp_path / "data", tokenizer) for data in (config.data, more))
        # A translation may happen to be a held-out sentence.
        leaked = both.manifest.removed_from_training - alone.manifest.removed_from_training
        assert len(both.split("train")) == len(alone.split("train")) + done.written - leaked
        assert leaked < done.written / 10
        assert both.evaluation_set("test") == alone.evaluation_set("test")

    def test_text_in_the_source_language_alone(self, make_run: Any, tmp_path: Path) -> None:
        (tmp_path / "mono.txt").write_text("他喜欢貓。\n\n \n他喜欢猫。\n她看见狗。\n", encoding="utf-8")
        # Greedy: what the tiny teacher knows by heart, whichever way the processor rounds.
        greedy = Search(beam_size=1, n_best=1)
        done = make_pseudo_targets(make_run(tmp_path), tmp_path / "out", greedy, sources=[tmp_path / "mono.txt"])
        assert [(row["source"], row["target"], row["chrf"]) for row in rows_of(done.path)] == [
            ("他喜欢猫。", "he likes the cat.", None), ("她看见狗。", "she sees the dog.", None)
        ]  # fmt: skip

    def test_files_without_text(self, make_run: Any, tmp_path: Path) -> None:
        (tmp_path / "mono.txt").write_text("\n \n", encoding="utf-8")
        with pytest.raises(DataError, match=r"nothing to translate: got no line with text in .*mono\.txt"):
            make_pseudo_targets(make_run(tmp_path), tmp_path / "out", sources=[tmp_path / "mono.txt"])

    def test_what_is_there_is_not_replaced(self, make_run: Any, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("hours of work", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"there already: got .*out"):
            make_pseudo_targets(make_run(tmp_path), tmp_path / "out")
        assert (tmp_path / "out").read_text(encoding="utf-8") == "hours of work"

    @pytest.mark.parametrize(
        ("search", "message"),
        [
            (Search(beam_size=3, n_best=4), r"got --n-best 4, accepted up to 3, the --beam"),
            (Search(beam_size=5, n_best=3, kept=4), r"got --keep 4, accepted up to 3, the --n-best"),
        ],
    )
    def test_more_translations_than_there_are(
        self, search: Search, message: str, make_run: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            make_pseudo_targets(make_run(tmp_path), tmp_path / "out", search)


@pytest.mark.parametrize(("kept", "expected"), [(1, Search(5, 4, 1)), (4, Search(5, 4, 4)), (7, Search(7, 7, 7))])
def test_the_search_is_as_wide_as_needed(kept: int, expected: Search) -> None:
    assert search_for(kept) == expected
