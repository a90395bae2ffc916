from pathlib import Path
from typing import Any

import pytest

from mtdistill.config import apply_overrides
from mtdistill.distillation.construction import first_batches, plan_student, start_student
from mtdistill.distillation.materials import Materials
from mtdistill.errors import StudentError
from mtdistill.presets import PRESET_NAMES, load_preset


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_preset_keeps_no_more_than_there_is(name: str, materials: Materials) -> None:
    config = load_preset(name).config
    blueprint = plan_student(config, materials.teacher)
    for kept, wanted in (
        (blueprint.kept_encoder_layers, config.student.encoder_layers),
        (blueprint.kept_decoder_layers, config.student.decoder_layers),
    ):
        assert len(kept) == min(2, wanted or 2)
    assert blueprint.feed_forward_width == min(32, config.student.d_ff or 32)
    assert blueprint.width == config.student.resolve_width(16) <= 16


def test_fewer_layers_and_named_layers(materials: Materials) -> None:
    config = apply_overrides(
        load_preset("quick").config,
        ["student.encoder_layers=1", "student.decoder_layers=none", "student.kept_decoder_layers=[1]"],
    )
    blueprint = plan_student(config, materials.teacher)
    assert len(blueprint.kept_encoder_layers) == 1
    assert blueprint.kept_decoder_layers == (1,)


def test_a_named_layer_that_is_not_there_is_refused(materials: Materials) -> None:
    wanted = ["student.decoder_layers=none", "student.kept_decoder_layers=[0, 5]"]
    with pytest.raises(StudentError, match="kept_decoder_layers"):
        plan_student(apply_overrides(load_preset("quick").config, wanted), materials.teacher)


@pytest.mark.parametrize(
    ("overrides", "tied"),
    [
        (["expected.compression_ratio=0.5"], False),
        (["expected.compression_ratio=2.5"], True),  # the tiny teacher is hardly more than its table
        (["expected.compression_ratio=0.5", "student.width=16"], True),
        (["expected.compression_ratio=0.5", "student.tie_inputs=true"], True),
        (["expected.compression_ratio=2.5", "student.tie_inputs=false"], False),
    ],
    ids=["it fits", "too large", "as wide as the teacher", "not wanted", "wanted"],
)
def test_the_source_has_a_table_of_its_own_where_the_promised_compression_allows_it(
    make_run: Any, materials: Materials, tmp_path: Path, overrides: list[str], tied: bool
) -> None:
    student = start_student(make_run(tmp_path, *overrides), materials.teacher, materials.data).build.model
    assert (student.encoder.embed_tokens.weight is student.shared.weight) == tied
    assert student.lm_head.weight is student.decoder.embed_tokens.weight is student.shared.weight


def test_a_slice_starts_nearer_to_the_teacher_than_noise(make_run: Any, materials: Materials, tmp_path: Path) -> None:
    student = start_student(make_run(tmp_path), materials.teacher, materials.data)
    assert student.build.model.config.d_model == 14
    assert student.start is not None
    assert 0 < student.start.kl_student < student.start.kl_random


def test_noise_has_no_start_to_check(make_run: Any, materials: Materials, tmp_path: Path) -> None:
    config = make_run(tmp_path, "student.initialisation=random")
    assert start_student(config, materials.teacher, materials.data).start is None


def test_first_batches_are_cut_to_sentences_and_tokens(materials: Materials) -> None:
    batches = first_batches(materials.data, "train", 60, 4)
    assert [len(source) for source, _, _ in batches] == [50, 10]
    assert all(source.shape[1] <= 4 and labels.shape[1] <= 4 for source, _, labels in batches)
    lengths = [(labels != -100).sum(dim=1).max() for _, _, labels in batches]
    assert lengths == sorted(lengths)  # little padding
    rows = len(materials.data.split("test"))
    assert sum(len(source) for source, _, _ in first_batches(materials.data, "test", 10_000, 32)) == rows


def test_more_decoder_than_encoder_layers_are_refused_because_transformers_cannot_generate(
    materials: Materials,
) -> None:
    config = apply_overrides(load_preset("quick").config, ["student.encoder_layers=1", "student.decoder_layers=2"])
    with pytest.raises(StudentError, match="got 1 encoder and 2 decoder layers"):
        plan_student(config, materials.teacher)
    for name in PRESET_NAMES:
        student = load_preset(name).config.student
        assert (student.encoder_layers or 99) >= (student.decoder_layers or 99)
