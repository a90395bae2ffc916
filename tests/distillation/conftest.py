"""A run in miniature: the tiny teacher, its corpus in a file, and the preset quick cut down to them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtdistill.config import RunConfig, apply_overrides
from mtdistill.display import Display
from mtdistill.presets import load_preset

if TYPE_CHECKING:
    from mtdistill.distillation.materials import Materials

MakeRun = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def corpus_file(tiny_corpus: Sequence[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in tiny_corpus), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def make_run(tiny_teacher_folder: Path, corpus_file: Path) -> MakeRun:
    """The settings of a run of seconds in a folder; further overrides as in ``--set``."""

    def make(output: Path, *overrides: str) -> RunConfig:
        return apply_overrides(
            load_preset("quick").config,
            [
                f"output={output}",
                f"teacher.path={tiny_teacher_folder}",
                f"data.train={corpus_file}",
                "data.source_lang=zh",
                "data.target_lang=en",
                "data.validation_ratio=0.1",
                "data.test_ratio=0.1",
                "student.width_ratio=0.9",
                "teacher.pseudo_targets=0",
                "training.data_ratio=1.0",
                "training.batch_size=8",
                "training.learning_rate=0.02",
                "training.embedding_learning_rate_ratio=1.0",
                "training.threads=1",
                "training.precision=float32",
                *overrides,
            ],
        )

    return make


@pytest.fixture(scope="session")
def materials(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> "Materials":
    """Teacher and prepared data, shared by all tests: not to be changed."""
    from mtdistill.distillation.materials import prepare_materials

    return prepare_materials(make_run(tmp_path_factory.mktemp("prepared")), Display())
