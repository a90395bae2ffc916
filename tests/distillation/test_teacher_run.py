"""`mtdistill teacher train` without the command line: from text to a tested teacher that can be distilled."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mtdistill.config import RunConfig
from mtdistill.display import Bar, Display
from mtdistill.distillation.materials import prepare_materials
from mtdistill.distillation.run_folder import locked
from mtdistill.distillation.teacher_run import BEAMS, run_teacher_training
from mtdistill.errors import CheckpointError, ConfigError
from mtdistill.modeling.folder import RECORD_FILE
from mtdistill.teacher.training import TeacherRecipe
from mtdistill.training.checkpoints import latest_checkpoint
from mtdistill.training.schedule import Schedule
from mtdistill.training.stored_engine import store_engine, stored_engine

RECIPE = TeacherRecipe(
    encoder_layers=1, decoder_layers=1, width=16, heads=2, head_width=8, feed_forward_width=32, dropout=0.0,
    layer_drop=0.0,
    schedule=Schedule(epochs=2, batch_size=16, gradient_accumulation=1, learning_rate=0.01, weight_decay=0.01,
                      max_sequence_length=32, evaluations=2),
)  # fmt: skip


class Pressed(Display):
    """Presses Ctrl-C when the second half of training has begun."""

    @contextmanager
    def bar(self, label: str, total: int, done: int = 0) -> Iterator[Bar]:
        class Pressing(Bar):
            def advance_to(self, done: int, note: str = "") -> None:
                if done > total // 2 + 1:
                    raise KeyboardInterrupt

        yield Pressing()


def test_a_teacher_is_trained_tested_and_fit_to_be_distilled(
    make_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config, folder = make_run(tmp_path), tmp_path / "teacher-zh-en"
    data = config.data.model_copy(update={"vocabulary_size": 400})
    with pytest.raises(KeyboardInterrupt):
        run_teacher_training(data, RECIPE, folder, Pressed(), threads=1)
    assert latest_checkpoint(folder) is not None
    found = stored_engine(folder)
    assert found is not None
    engine = dataclasses.replace(found, max_part_tokens=4096)
    store_engine(folder, engine)
    with pytest.raises(CheckpointError, match="different now: dropout"):
        run_teacher_training(data, dataclasses.replace(RECIPE, dropout=0.5), folder, Display(), resume=True, threads=1)
    best = run_teacher_training(data, RECIPE, folder, Display(), resume=True, threads=1)
    assert stored_engine(folder) == engine
    test = json.loads((best / RECORD_FILE).read_text(encoding="utf-8"))["test"]
    assert [test[f"beam_{beam}"]["bleu"] >= 0 for beam in BEAMS] == [True, True]
    assert len(test["beam_1"]["samples"]) == min(10, test["sentences"])
    assert (folder / "metrics.jsonl").is_file()
    taken = config.model_copy(
        update={"data": data, "teacher": config.teacher.model_copy(update={"path": str(best), "min_bleu": 0.0})}
    )
    assert prepare_materials(taken, Display()).teacher.folder == best


def test_two_do_not_write_into_one_folder(make_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    folder = tmp_path / "teacher-zh-en"
    with locked(folder), pytest.raises(ConfigError, match="another run is writing"):
        run_teacher_training(make_run(tmp_path).data, RECIPE, folder, Display(), threads=1)
