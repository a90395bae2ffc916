import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import datasets
import pytest
import torch
from torch import Tensor

from mtdistill.config import TeacherConfig
from mtdistill.data.tokenizer import train_tokenizer
from mtdistill.distillation.materials import Materials
from mtdistill.distillation.preflight import check_pairs, check_teacher, check_training
from mtdistill.distillation.trainer import DistillationTrainer
from mtdistill.errors import DataError, TeacherError
from mtdistill.health.journal import HEALTH_FILE, Journal, read_findings
from mtdistill.presets import load_preset
from mtdistill.teacher.targets import LiveTargets

CONFIG = TeacherConfig()


def test_a_teacher_that_translates_the_data_is_accepted(materials: Materials) -> None:
    assert check_teacher(materials.teacher, materials.data, CONFIG, threads=1) > 50


@pytest.mark.parametrize("languages", [(None, None), ("zh-CN", "en-GB")])
def test_unknown_and_regional_languages_are_accepted(
    languages: tuple[str | None, str | None], materials: Materials
) -> None:
    teacher = dataclasses.replace(materials.teacher, source_lang=languages[0], target_lang=languages[1])
    assert check_teacher(teacher, materials.data, CONFIG, threads=1) > 50


@pytest.mark.parametrize("languages", [("en", "zh"), ("de", "en"), ("zh", "ja"), (None, "ja")])
def test_other_languages_are_named(languages: tuple[str | None, str | None], materials: Materials) -> None:
    teacher = dataclasses.replace(materials.teacher, source_lang=languages[0], target_lang=languages[1])
    with pytest.raises(TeacherError, match=rf"got {languages[0]}-{languages[1]}, the data is zh-en"):
        check_teacher(teacher, materials.data, CONFIG, threads=1)


def test_another_tokenizer_is_refused(materials: Materials, tiny_corpus: Sequence[tuple[str, str]]) -> None:
    other = train_tokenizer((target for _, target in tiny_corpus), 360, 1.0)
    with pytest.raises(TeacherError, match="another tokenizer than the teacher's"):
        check_teacher(dataclasses.replace(materials.teacher, tokenizer=other), materials.data, CONFIG, threads=1)


def test_a_teacher_that_says_nothing_is_refused_with_its_bleu(materials: Materials) -> None:
    model = copy.deepcopy(materials.teacher.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    sentences = len(materials.data.evaluation_set("validation"))
    with pytest.raises(
        TeacherError,
        match=rf"got BLEU 0\.0 on {sentences} validation sentences, accepted at least 5 .*teacher.min_bleu",
    ):
        check_teacher(dataclasses.replace(materials.teacher, model=model), materials.data, CONFIG, threads=1)


class TestPairs:
    @pytest.fixture
    def check(self, materials: Materials, tmp_path: Path) -> Callable[..., list[str]]:
        """Names of the findings of these rows; whatever ends a run is raised."""

        def found(rows: datasets.Dataset, max_tokens: int = 32) -> list[str]:
            model = materials.teacher.model
            check_pairs(LiveTargets(model), model, rows, max_tokens, Journal(tmp_path / HEALTH_FILE))
            return [finding.check for finding in read_findings(tmp_path / HEALTH_FILE)]

        return found

    def test_good_pairs_are_silent(self, materials: Materials, check: Callable[..., list[str]]) -> None:
        assert check(materials.data.split("train")) == []

    def test_cut_pairs_are_told(self, materials: Materials, check: Callable[..., list[str]]) -> None:
        assert check(materials.data.split("train"), max_tokens=4) == ["many_truncated"]

    def test_swapped_languages_end_the_run(
        self, materials: Materials, check: Callable[..., list[str]], tmp_path: Path
    ) -> None:
        rows = materials.data.split("train")
        names = {"source_ids": "target_ids", "source_tokens": "target_tokens"}
        swapped = rows.rename_columns({**names, **{new: old for old, new in names.items()}})
        with pytest.raises(DataError, match=r"Source and target are swapped\. Exchange data\.source_lang"):
            check(swapped)
        assert read_findings(tmp_path / HEALTH_FILE)[0].check == "swapped_languages"

    def test_shuffled_pairs_end_the_run(self, materials: Materials, check: Callable[..., list[str]]) -> None:
        rows = materials.data.split("train")
        targets = list(rows["target_ids"])
        moved = rows.remove_columns("target_ids").add_column("target_ids", [*targets[17:], *targets[:17]])
        with pytest.raises(DataError, match="shuffled against each other"):
            check(moved)

    def test_one_pair_again_and_again_ends_the_run_half_of_them_does_not(
        self, materials: Materials, check: Callable[..., list[str]]
    ) -> None:
        rows = materials.data.split("train")
        with pytest.raises(DataError, match="Only 1% of the training pairs"):
            check(rows.select([0] * 100))

    def test_repetitions_are_told(self, materials: Materials, check: Callable[..., list[str]]) -> None:
        rows = materials.data.split("train")
        assert check(rows.select([number % 40 for number in range(100)])) == ["duplicate_data"]


class TestTraining:
    @pytest.fixture
    def trainer(self, materials: Materials, tmp_path: Path) -> DistillationTrainer:
        from mtdistill.distillation.budget import training_schedule
        from mtdistill.distillation.construction import rehearsal_student

        config = load_preset("quick").config
        return DistillationTrainer(
            rehearsal_student(config, materials.teacher), LiveTargets(materials.teacher.model), config.kd,
            materials.data.split("train"), training_schedule(config.training), tmp_path / "run", lambda _model: {},
        )  # fmt: skip

    def test_a_good_start_is_silent(self, trainer: DistillationTrainer, materials: Materials) -> None:
        journal = Journal(None)
        check_training(trainer, materials.data.split("train"), 2**40, journal)
        assert journal.lines == 0

    def test_a_full_disk_ends_the_run(self, trainer: DistillationTrainer, materials: Materials) -> None:
        with pytest.raises(DataError, match=r"0 MiB of disk are free, the run wants about \d+"):
            check_training(trainer, materials.data.split("train"), 1000, Journal(None))

    def test_little_memory_is_told(
        self, trainer: DistillationTrainer, materials: Materials, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mtdistill.distillation.preflight.free_memory_bytes", lambda: 2**20)
        journal = Journal(None)
        check_training(trainer, materials.data.split("train"), 2**40, journal)
        assert journal.counts == {"little_memory": 1}

    def test_a_loss_in_which_sentences_mix_ends_the_run(
        self, trainer: DistillationTrainer, materials: Materials, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losses = trainer.losses_from_states

        def mixed(states: Tensor, head: Tensor, batch: object) -> Mapping[str, Tensor]:
            return {"total": losses(states, head, batch)["total"] + 5.0}  # type: ignore[arg-type]

        monkeypatch.setattr(trainer, "losses_from_states", mixed)
        with pytest.raises(DataError, match="influence each other"):
            check_training(trainer, materials.data.split("train"), 2**40, Journal(None))
