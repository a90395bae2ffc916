import errno
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.display import Display
from mtdistill.distillation.measuring import measure_student, rarest_pieces, report_folder
from mtdistill.errors import CheckpointError, MissingExtraError, TeacherError
from mtdistill.evaluation import SpeedUp
from mtdistill.export.exporting import export_model
from mtdistill.report import ReportCard
from mtdistill.student.bundle import Student, save_bundle, save_folder
from mtdistill.student.loading import find_model

TinyTeacher = tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]


@pytest.fixture(autouse=True)
def few_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtdistill.report.duels.SPEED_REPEATS", 1)
    monkeypatch.setattr("mtdistill.report.duels.SPEED_SENTENCES", {32: 12, 1: 12})


@pytest.fixture
def run_of(tiny_teacher: TinyTeacher, make_run: Any, tmp_path: Path) -> Path:
    """A run folder whose student is the teacher itself."""
    config = make_run(tmp_path)
    folder = tmp_path / "distillation-quick"
    info = {"source_lang": "zh", "target_lang": "en", "config": config.model_dump(mode="json")}
    save_bundle(Student(*tiny_teacher, info), folder / "checkpoints" / "student_best.pt")
    (folder / "config.toml").write_text("")
    (folder / "environment.json").write_text("{}")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    return folder


def in_same_conditions(speed: SpeedUp) -> bool:
    teacher, student = speed.teacher, speed.student
    return (teacher.engine, teacher.precision, teacher.threads) == (student.engine, student.precision, student.threads)


class TestAStudent:
    def test_gets_the_whole_card(self, run_of: Path) -> None:
        card = measure_student(run_of / "checkpoints" / "student_best.pt")
        assert [quality.beam_size for quality in card.qualities] == [1, 4]
        assert card.quality.retention.ratio == 1.0
        conditions = {
            (s.student.engine, s.student.precision, s.student.threads, s.batch_size, s.beam_size)
            for s in card.speed_ups
            if in_same_conditions(s)
        }
        # This machine of tests has one thread, so that "all" is no condition of its own.
        assert conditions == {
            ("CTranslate2", precision, 1, batch, beam)
            for precision in ("float32", "int8")
            for batch in (32, 1)
            for beam in (1, 4)
        } | {("PyTorch", "float32", 1, batch, 1) for batch in (32, 1)}
        deployed = [s for s in card.speed_ups if not in_same_conditions(s)]
        assert [(s.teacher.engine, s.student.engine, s.student.precision) for s in deployed] == [
            ("PyTorch", "CTranslate2", "int8")
        ]
        assert card.promised_speed_ups == 4
        assert card.promise("speed_up").measured == min(s.ratio for s in card.speed_ups[:4])
        assert {(s.student.engine, s.beam_size, s.student.threads) for s in card.speed_ups[:4]} == {
            ("CTranslate2", 1, 1)
        }
        assert card.student.peak_memory_mib is not None
        assert card.student.peak_memory_mib > 0
        assert card.by_rarity
        assert ReportCard.from_json((run_of / "report.json").read_text(encoding="utf-8")) == card
        page = (run_of / "report.html").read_text(encoding="utf-8")
        assert "<svg" in page

    def test_is_only_timed_for_its_promise_when_asked_to_be_quick(self, run_of: Path) -> None:
        card = measure_student(run_of, thorough=False)
        assert len(card.speed_ups) == card.promised_speed_ups + 1
        assert card.student.peak_memory_mib is None

    def test_measured_twice_has_the_same_quality(self, run_of: Path) -> None:
        first, second = (measure_student(run_of, thorough=False) for _ in range(2))
        assert (first.qualities, first.success, first.worst) == (second.qualities, second.success, second.worst)
        assert (first.by_length, first.by_rarity) == (second.by_length, second.by_rarity)

    def test_on_sentences_of_the_users_own(self, run_of: Path, tmp_path: Path) -> None:
        measure_student(run_of, thorough=False)
        before = (run_of / "report.json").read_bytes()
        (tmp_path / "own.tsv").write_text(
            "他喜欢猫。\the likes the cat.\n他喜欢猫。\the loves cats.\n她看见狗。\tNo.\n"
        )
        card = measure_student(run_of, data=[str(tmp_path / "own.tsv")], thorough=False)
        assert (card.test_set, card.sentences, card.by_rarity) == ("own.tsv", 2, ())
        assert card.samples[0].references == ("he likes the cat.", "he loves cats.")
        assert (run_of / "report.json").read_bytes() == before
        assert json.loads((run_of / "report-own.json").read_text(encoding="utf-8"))["test_set"] == "own.tsv"


@pytest.mark.parametrize(("format_name", "engine"), [("ctranslate2", "CTranslate2"), ("onnx", "ONNX Runtime")])
def test_an_export_is_measured_as_it_is(
    format_name: str, engine: str, run_of: Path, corpus_file: Path, tiny_corpus: Sequence[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("mtdistill.decoding.overflow.int8_overflows", lambda: True)
    done = export_model(run_of, format_name, "int8", accept_loss=True)
    assert done.folder == run_of / "export" / f"{format_name}-int8"
    said = io.StringIO()
    card = measure_student(done.folder, Display(Console(file=said)))
    assert ("CT2_USE_MKL=1" in said.getvalue()) is (engine == "CTranslate2")
    assert card.form == f"{engine} int8"
    assert card.engine == f"{engine} int8"
    assert card.preset == "quick"
    assert card.compression_ratio == 1.0
    timed = {(s.student.engine, s.student.precision) for s in card.speed_ups}
    assert timed == {(engine, "int8")}
    assert {(s.teacher.engine, s.teacher.precision) for s in card.speed_ups[: card.promised_speed_ups]} == timed
    assert (done.folder / "report.json").is_file()
    assert (done.folder / "report.html").is_file()
    assert not (run_of / "report.json").exists()


def test_what_was_measured_is_shown_where_no_report_can_be_written(
    run_of: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_arguments: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("mtdistill.distillation.measuring.write_atomically", read_only)
    said = io.StringIO()
    card = measure_student(run_of, Display(Console(file=said, width=1000)), data=[str(corpus_file)], thorough=False)
    assert card.quality.retention.ratio == 1.0
    assert f"the report could not be written: got {run_of} (Read-only file system)" in said.getvalue()


def test_the_report_of_an_export_belongs_to_it_whatever_its_form(run_of: Path) -> None:
    done = export_model(run_of, "hf", "float32")
    assert report_folder(find_model(done.folder)) == done.folder
    assert report_folder(find_model(run_of)) == run_of


def test_a_teacher_promises_nothing(tiny_teacher_folder: Path, corpus_file: Path) -> None:
    before = sorted(tiny_teacher_folder.iterdir())
    card = measure_student(tiny_teacher_folder, data=[str(corpus_file)], thorough=False)
    assert (card.preset, card.verdict, card.promises, card.keeps_promises) == (None, "unpromised", (), True)
    assert card.quality.teacher == card.quality.student
    assert card.quality.teacher.bleu > 95
    assert sorted(tiny_teacher_folder.iterdir()) == before


def test_rarest_pieces_are_counted_in_the_training_sources(materials: Any) -> None:
    data = materials.data
    sentences = data.evaluation_set("test")
    counts = np.zeros(len(data.tokenizer), dtype=int)
    for ids in data.split("train")["source_ids"]:
        np.add.at(counts, ids, 1)
    wanted = [min(counts[data.tokenizer(source)["input_ids"]]) for source in sentences.sources]
    assert rarest_pieces(data, sentences) == wanted
    assert len(set(wanted)) > 1


@pytest.mark.parametrize("info", [{}, {"config": "quick"}, {"config": {"preset": "quick"}}, {"config": None}], ids=str)
def test_a_student_that_does_not_say_how_it_was_made(
    info: dict[str, Any], tiny_teacher: TinyTeacher, tmp_path: Path
) -> None:
    save_bundle(Student(*tiny_teacher, info), tmp_path / "student_best.pt")
    with pytest.raises(CheckpointError, match=r"does not say how it was made: got .*student_best\.pt"):
        measure_student(tmp_path / "student_best.pt")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no student"):
        measure_student(tmp_path / "student_best.pt")


def test_a_missing_package_is_told_before_anything_is_translated(
    tiny_teacher: TinyTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_bundle(Student(*tiny_teacher, {}), tmp_path / "student_best.pt")  # and cannot be measured at all
    monkeypatch.setitem(sys.modules, "comet", None)
    with pytest.raises(MissingExtraError, match="pip install unbabel-comet"):
        measure_student(tmp_path / "student_best.pt", comet_model=tmp_path / "model.ckpt")


def test_its_teacher_is_gone(tiny_teacher: TinyTeacher, make_run: Any, tmp_path: Path) -> None:
    info = {"config": make_run(tmp_path, f"teacher.path={tmp_path / 'gone'}").model_dump(mode="json")}
    save_folder(Student(*tiny_teacher, info), tmp_path / "student")
    with pytest.raises((CheckpointError, TeacherError), match=re.escape("gone")):
        measure_student(tmp_path / "student")
