import copy
import dataclasses
from collections.abc import Sequence

import pytest
import torch

from mtdistill.config import TeacherConfig
from mtdistill.data.tokenizer import train_tokenizer
from mtdistill.distillation.materials import Materials
from mtdistill.distillation.preflight import check_teacher
from mtdistill.errors import TeacherError

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
