from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.distillation.measuring import measure_student
from mtdistill.errors import CheckpointError, TeacherError
from mtdistill.student.bundle import Student, save_bundle, save_folder

TinyTeacher = tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]


@pytest.mark.parametrize("info", [{}, {"config": "quick"}, {"config": {"preset": "quick"}}, {"config": None}], ids=str)
def test_a_student_that_does_not_say_how_it_was_made(
    info: dict[str, Any], tiny_teacher: TinyTeacher, tmp_path: Path
) -> None:
    save_bundle(Student(*tiny_teacher, info), tmp_path / "student_best.pt")
    with pytest.raises(CheckpointError, match=r"does not say how it was made: got .*student_best\.pt"):
        measure_student(tmp_path / "student_best.pt")


def test_a_model_of_another_tool(tiny_teacher_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="does not say how it was made"):
        measure_student(tiny_teacher_folder)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no student"):
        measure_student(tmp_path / "student_best.pt")


def test_its_teacher_is_gone(tiny_teacher: TinyTeacher, make_run: Any, tmp_path: Path) -> None:
    info = {"config": make_run(tmp_path, f"teacher.path={tmp_path / 'gone'}").model_dump(mode="json")}
    save_folder(Student(*tiny_teacher, info), tmp_path / "student")
    with pytest.raises((CheckpointError, TeacherError), match="gone"):
        measure_student(tmp_path / "student")
