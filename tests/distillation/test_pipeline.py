"""Whole runs, from text to report card, on a tiny teacher."""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import mtdistill
from mtdistill.cli import main
from mtdistill.config import RunConfig, read_toml
from mtdistill.display import Bar, Display
from mtdistill.distillation import pipeline
from mtdistill.distillation.materials import Materials, prepare_materials
from mtdistill.distillation.pipeline import RunResult, distill
from mtdistill.distillation.run_folder import RunFolder, run_folder
from mtdistill.distillation.trainer import DistillationTrainer
from mtdistill.errors import CheckpointError, ConfigError, TrainingFailedError
from mtdistill.health.journal import HEALTH_FILE, read_findings
from mtdistill.report import ReportCard
from mtdistill.student.bundle import load_student
from mtdistill.training.beginning import BEGUN_FILE
from mtdistill.training.stored_engine import stored_engine

pytestmark = pytest.mark.pipeline

README = Path(__file__).parents[2] / "README.md"
# Whatever is random or kept between updates is in use, so that a resumed run has to restore it.
SETTINGS = (
    "training.epochs=8",
    "training.gradient_accumulation=2",
    "training.dropout=0.02",
    "training.ema_decay=0.9",
    "training.evaluations=5",
    "kd.final_temperature=2",
    "teacher.pseudo_targets=2",
    "teacher.pseudo_targets_take_turns=true",
)


class StopAt(Display):
    """Presses Ctrl-C at an update."""

    def __init__(self, update: int) -> None:
        super().__init__()
        self.update = update

    @contextmanager
    def bar(self, label: str, total: int, done: int = 0) -> Iterator[Bar]:
        class StoppingBar(Bar):
            def advance_to(_self, done: int, note: str = "") -> None:  # noqa: N805
                if done == self.update:
                    raise KeyboardInterrupt

        assert done < self.update < total
        yield StoppingBar()


@pytest.fixture(scope="module")
def config(make_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return make_run(tmp_path_factory.mktemp("runs"), *SETTINGS)


@pytest.fixture(scope="module")
def finished(config: RunConfig) -> RunResult:
    return distill(config, compare_random=True)


def scores(folder: Path) -> list[dict[str, Any]]:
    """What was logged, without what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    timed = ("tokens_per_second", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def test_a_run_leaves_what_the_documentation_says(config: RunConfig, finished: RunResult) -> None:
    folder = finished.folder
    assert folder == Path(config.output) / "distillation-quick"
    drawn = (README.parent / "docs" / "files.md").read_text(encoding="utf-8").split("└── distillation-<preset>/")[1]
    documented = re.findall(r"[├└]── (\S+)", drawn.split("```")[0])
    assert len(documented) >= 9
    for name in documented:
        assert list(folder.glob(name.rstrip("/"))), f"{name} is not there"
    known = {name.split("/")[0] for name in documented}
    assert {path.name for path in folder.iterdir()} == known
    assert len(list((folder / "checkpoints").glob("checkpoint-*/complete"))) == config.training.checkpoints_kept
    assert list((folder / "logs").glob("events.out.tfevents*"))
    assert read_toml(folder / "config.toml") == config
    assert not list(Path(config.output).rglob("*.part"))


def test_the_report_is_readable_and_the_one_returned(finished: RunResult) -> None:
    card = ReportCard.from_json((finished.folder / "report.json").read_text(encoding="utf-8"))
    assert card == finished.report
    assert card.teacher.parameters > card.student.parameters
    assert card.quality.retention.ratio > 0.5
    assert card.random_bleu is not None
    assert card.training_seconds is not None
    assert 0 < card.training_seconds < finished.seconds


def test_translations_that_take_turns_with_the_gold_text_add_no_updates(
    config: RunConfig, finished: RunResult, materials: Materials
) -> None:
    batches = math.ceil(len(materials.data.split("train")) / config.training.batch_size)
    last = json.loads((finished.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["update"] == config.training.epochs * math.ceil(batches / config.training.gradient_accumulation)


def test_slicing_beats_random_weights_at_the_same_budget(finished: RunResult) -> None:
    assert finished.report.random_bleu is not None
    assert finished.report.random_bleu < finished.report.quality.student.bleu


def test_a_random_baseline_that_fails_takes_nothing_from_the_student(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_arguments: Any, **_options: Any) -> Any:
        raise TrainingFailedError("the loss never fell")

    class Said(Display):
        def say(self, line: str) -> None:
            lines.append(line)

    lines: list[str] = []
    monkeypatch.setattr(pipeline, "train_student", fails)
    assert pipeline._random_baseline(config, SimpleNamespace(), RunFolder(tmp_path), Said(), resume=False) is None
    assert lines[-1] == "the loss never fell"


def test_the_student_is_the_best_by_validation(finished: RunResult) -> None:
    student = load_student(finished.student_path)
    validated = [line["eval_chrf"] for line in scores(finished.folder) if "eval_chrf" in line]
    assert len(validated) == 5
    assert student.info["validation"]["chrf"] == max(validated)
    as_folder = load_student(finished.folder / "checkpoints" / "student_best")
    assert as_folder.info == student.info
    other = as_folder.model.state_dict()
    assert all(torch.equal(weight, other[name]) for name, weight in student.model.state_dict().items())


def test_an_interrupted_run_that_is_resumed_ends_as_the_uninterrupted_one(
    config: RunConfig, finished: RunResult
) -> None:
    with pytest.raises(KeyboardInterrupt):
        distill(config, StopAt(42))
    (older,) = Path(config.output).glob("distillation-quick-*")  # the finished run made way and is whole
    try:
        assert (older / "report.json").is_file()
        assert not run_folder(config).report.exists()
        with pytest.raises(ConfigError, match=r"training\.learning_rate"):
            distill(
                config.model_copy(update={"training": config.training.model_copy(update={"learning_rate": 0.1})}),
                resume=True,
            )
        begun = run_folder(config).path / BEGUN_FILE
        noted = json.loads(begun.read_text(encoding="utf-8"))
        for name in noted:
            begun.write_text(json.dumps({**noted, name: "another"}), encoding="utf-8")
            with pytest.raises(CheckpointError, match=rf"different now: {name}\."):
                distill(config, resume=True)
        begun.write_text(json.dumps(noted), encoding="utf-8")
        resumed = distill(config, resume=True)
        weights, expected = (
            load_student(folder / "checkpoints" / "student_best.pt").model.state_dict()
            for folder in (resumed.folder, older)
        )
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())
        assert scores(resumed.folder) == scores(older)
        assert resumed.report.qualities == finished.report.qualities
        assert resumed.report.success == finished.report.success
        assert finished.report.by_length == resumed.report.by_length
        for checkpoint in (resumed.folder / "checkpoints").glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        with pytest.raises(
            CheckpointError, match=r"is finished and its checkpoints are gone: got .*distillation-quick"
        ):
            distill(config, resume=True)
    finally:
        replaced = Path(config.output) / "resumed"
        finished.folder.rename(replaced)
        older.rename(finished.folder)


def test_a_student_is_tested_again_from_its_file(finished: RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--model_path", str(finished.student_path)]) in (0, 1)
    assert "BLEU" in capsys.readouterr().out
    card = ReportCard.from_json((finished.folder / "report.json").read_text(encoding="utf-8"))
    assert card.measured_at >= finished.report.measured_at
    assert card.qualities == finished.report.qualities
    assert (card.training_seconds, card.random_bleu) == (finished.report.training_seconds, finished.report.random_bleu)


def test_testing_the_random_baseline_leaves_the_report_alone(finished: RunResult) -> None:
    before = (finished.folder / "report.json").read_bytes()
    baseline = finished.folder / "random-baseline" / "checkpoints" / "student_best.pt"
    card = mtdistill.measure_student(baseline)
    assert card.quality.student.bleu == pytest.approx(finished.report.random_bleu)
    assert (finished.folder / "report.json").read_bytes() == before


def test_own_validation_and_test_files(
    make_run: Callable[..., RunConfig], tiny_corpus: Sequence[tuple[str, str]], tmp_path: Path
) -> None:
    parts = {"train": tiny_corpus[:150], "validation": tiny_corpus[150:170], "test": tiny_corpus[170:]}
    for name, pairs in parts.items():
        text = "".join(f"{source}\t{target}\n" for source, target in pairs)
        (tmp_path / f"{name}.tsv").write_text(text, encoding="utf-8")
    files = [f"data.{name}={tmp_path / name}.tsv" for name in parts]
    prepared = prepare_materials(make_run(tmp_path, *files), Display()).data
    assert prepared.manifest.sizes == {"train": 150, "validation": 20, "test": 30}
    assert set(prepared.evaluation_set("validation").sources) == {source for source, _ in parts["validation"]}
    assert set(prepared.evaluation_set("test").sources) == {source for source, _ in parts["test"]}


def test_a_student_that_learnt_nothing_is_a_failure_with_a_report(
    make_run: Callable[..., RunConfig], materials: Materials, tmp_path: Path
) -> None:
    config = make_run(
        tmp_path,
        "student.initialisation=random",
        "training.epochs=1",
        "training.learning_rate=1e-6",
        "training.evaluations=1",
    )
    with pytest.raises(TrainingFailedError, match=r"is not usable: .*report\.json"):
        distill(config, materials=materials)
    card = ReportCard.from_json(run_folder(config).report.read_text(encoding="utf-8"))
    assert card.verdict == "failed"


def test_the_python_example_of_the_readme_runs(
    make_run: Callable[..., RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    tiny = SimpleNamespace(config=make_run(tmp_path, "training.evaluations=1"))
    monkeypatch.setattr(mtdistill, "load_preset", lambda _name: tiny, raising=False)
    exec(compile(example, str(README), "exec"), {})
    report, _, translation = capsys.readouterr().out.rstrip("\n").rpartition("\n")
    assert ReportCard.from_json(report).preset == "quick"
    assert translation


def test_a_student_that_the_kernels_do_not_cover_is_resumed_with_its_number_format_too(
    make_run: Callable[..., RunConfig], materials: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtdistill.training.trainer.supports", lambda _model: False)
    config = make_run(tmp_path, "training.epochs=2", "training.evaluations=1")
    engine = stored_engine(distill(config, materials=materials).folder)
    assert engine is not None
    assert not engine.fused


def test_a_run_that_is_stopped_is_reported_as_failed(
    make_run: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_run(tmp_path, *SETTINGS)
    plain = DistillationTrainer.losses_from_states

    def broken(self: DistillationTrainer, *arguments: Any) -> dict[str, torch.Tensor]:
        losses = plain(self, *arguments)
        # Good until the first evaluation has left a student.
        factor = math.nan if run_folder(config).best_bundle.is_file() else 1.0
        return {**losses, "total": losses["total"] * factor}

    monkeypatch.setattr(DistillationTrainer, "losses_from_states", broken)
    with pytest.raises(TrainingFailedError, match=r"training failed: .*The best student is in"):
        distill(config)
    run = run_folder(config)
    assert ReportCard.from_json(run.report.read_text(encoding="utf-8")).verdict == "failed"
    assert load_student(run.best_bundle).info["validation"]["chrf"] >= 0
    assert [finding.action for finding in read_findings(run.path / HEALTH_FILE)][-1] == "stopped"
