import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mtdistill.errors import DataError, MissingExtraError
from mtdistill.evaluation import comet_scores

SOURCES = ["他喜欢猫。", "她看见狗。"]
REFERENCES = [["he likes the cat.", "he loves cats."], ["she sees the dog."]]
TEACHER, STUDENT = ["he likes the cat.", "she sees a dog."], ["he likes it.", "dog."]


class FakeComet(ModuleType):
    """The package as `comet_scores` uses it: one model, whose score is the mean length of the translations / 100."""

    def __init__(self) -> None:
        super().__init__("comet")
        self.opened: list[str] = []
        self.given: list[list[dict[str, str]]] = []
        self.options: list[dict[str, Any]] = []

    def load_from_checkpoint(self, path: str) -> "FakeComet":
        self.opened.append(path)
        return self

    def predict(self, rows: list[dict[str, str]], **options: Any) -> Any:
        self.given.append(rows)
        self.options.append(options)
        return SimpleNamespace(system_score=sum(len(row["mt"]) for row in rows) / len(rows) / 100)


@pytest.fixture
def comet(monkeypatch: pytest.MonkeyPatch) -> FakeComet:
    fake = FakeComet()
    monkeypatch.setitem(sys.modules, "comet", fake)
    return fake


def test_every_system_is_scored_from_0_to_100(comet: FakeComet) -> None:
    scores = comet_scores(Path("model.ckpt"), SOURCES, REFERENCES, [TEACHER, STUDENT])
    assert scores == pytest.approx([(17 + 15) / 2, (12 + 4) / 2])
    assert all(type(score) is float for score in scores)


def test_rows_hold_source_translation_and_first_reference(comet: FakeComet) -> None:
    comet_scores(Path("model.ckpt"), SOURCES, REFERENCES, [TEACHER, STUDENT])
    assert comet.given == [
        [
            {"src": "他喜欢猫。", "mt": texts[0], "ref": "he likes the cat."},
            {"src": "她看见狗。", "mt": texts[1], "ref": "she sees the dog."},
        ]
        for texts in (TEACHER, STUDENT)
    ]


def test_the_model_is_loaded_once_and_runs_without_a_graphics_card(comet: FakeComet) -> None:
    comet_scores(Path("folder") / "model.ckpt", SOURCES, REFERENCES, [TEACHER, STUDENT])
    assert comet.opened == [str(Path("folder") / "model.ckpt")]
    assert [options["gpus"] for options in comet.options] == [0, 0]
    assert [options["progress_bar"] for options in comet.options] == [False, False]


def test_all_lists_have_the_same_length(comet: FakeComet) -> None:
    with pytest.raises(ValueError, match="zip"):
        comet_scores(Path("model.ckpt"), SOURCES, REFERENCES, [STUDENT[:1]])


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "comet", None)  # an import of it fails
    with pytest.raises(MissingExtraError, match=r"unbabel-comet is not installed.*pip install unbabel-comet"):
        comet_scores(Path("model.ckpt"), SOURCES, REFERENCES, [STUDENT])


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), RuntimeError("PytorchStreamReader"), KeyError("hparams")])
def test_a_checkpoint_that_cannot_be_loaded_is_named(
    error: Exception, comet: FakeComet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: str) -> None:
        raise error

    monkeypatch.setattr(comet, "load_from_checkpoint", fail)
    with pytest.raises(DataError, match=rf"got model\.ckpt \({type(error).__name__}\), accepted .*\.ckpt"):
        comet_scores(Path("model.ckpt"), SOURCES, REFERENCES, [STUDENT])
