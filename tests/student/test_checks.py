import itertools
from collections.abc import Callable
from pathlib import Path

import ctranslate2
import pytest
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from mtdistill.data.tokenizer import EOS, PAD, UNK, serve_pieces
from mtdistill.errors import StudentError
from mtdistill.student.blueprint import Blueprint
from mtdistill.student.checks import check_student_start
from mtdistill.student.moments import measure_moments
from mtdistill.student.slicing import build_student, shape_of

Batches = list[tuple[Tensor, Tensor, Tensor]]
MakeTeacher = Callable[..., T5ForConditionalGeneration]


def reversed_rows(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A task that a small T5 learns in seconds: say the source backwards, then stop."""
    source = torch.randint(3, 20, (rows, 5), generator=generator)
    end = torch.ones(rows, 1, dtype=torch.long)
    return torch.cat([source, end], 1), torch.ones(rows, 6, dtype=torch.long), torch.cat([source.flip(1), end], 1)


@pytest.fixture(scope="module")
def trained() -> T5ForConditionalGeneration:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=20, d_model=32, d_kv=8, num_heads=4, d_ff=64, num_layers=2, num_decoder_layers=2,
                dropout_rate=0.0, decoder_start_token_id=0,
            )
        )  # fmt: skip
        model.decoder.final_layer_norm.weight.requires_grad_(False)
        generator = torch.Generator().manual_seed(1)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, 300)
        for _ in range(300):
            source, mask, labels = reversed_rows(64, generator)
            model(input_ids=source, attention_mask=mask, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model.train(False)


@pytest.fixture
def held_out() -> Batches:
    generator = torch.Generator().manual_seed(2)
    return [reversed_rows(50, generator) for _ in range(2)]


class TestStudentStart:
    @pytest.mark.parametrize(
        "kept", [{"width": 24}, {"width": 27, "decoder_layers": 1}, {"heads": 3}, {"feed_forward_width": 40}]
    )
    def test_a_slice_is_closer_to_its_teacher_than_noise(
        self, trained: T5ForConditionalGeneration, held_out: Batches, kept: dict[str, int]
    ) -> None:
        plan = Blueprint.plan(shape_of(trained), **kept)
        student = build_student(trained, plan, measure_moments(trained, held_out)).model
        noise = build_student(trained, plan, initialisation="random").model
        check = check_student_start(student, trained, held_out, noise)
        assert 0 < check.kl_student < 0.7 * check.kl_random

    def test_the_teacher_itself_is_at_no_distance(self, trained: T5ForConditionalGeneration, held_out: Batches) -> None:
        noise = build_student(trained, Blueprint.keep_everything(shape_of(trained)), initialisation="random").model
        check = check_student_start(trained, trained, held_out, noise)
        assert check.kl_student == 0
        source, mask, labels = held_out[0]
        with torch.no_grad():
            loss = trained(input_ids=source, attention_mask=mask, labels=labels).loss
        assert loss < 0.5, "the teacher has not learnt its task, so these tests compare noise with noise"

    def test_models_come_back_in_the_mode_they_were_in(
        self, trained: T5ForConditionalGeneration, held_out: Batches
    ) -> None:
        everything = Blueprint.keep_everything(shape_of(trained))
        student, noise = (build_student(trained, everything, initialisation="random").model for _ in range(2))
        student.train()
        noise.train(False)
        with pytest.raises(StudentError, match="got a divergence"):  # as far away as the noise that it is
            check_student_start(student, trained, held_out, noise)
        assert (student.training, noise.training, trained.training) == (True, False, False)

    def test_kl_is_a_mean_over_real_tokens(self, trained: T5ForConditionalGeneration, held_out: Batches) -> None:
        noise = build_student(trained, Blueprint.keep_everything(shape_of(trained)), initialisation="random").model
        whole = check_student_start(trained, trained, held_out, noise).kl_random
        padded = [
            (source, mask, torch.nn.functional.pad(labels, (0, 4), value=-100)) for source, mask, labels in held_out
        ]
        assert check_student_start(trained, trained, padded, noise).kl_random == pytest.approx(whole, rel=1e-4)
        assert check_student_start(trained, trained, held_out * 2, noise).kl_random == pytest.approx(whole, rel=1e-4)

    def test_a_student_no_better_than_noise_is_refused(
        self, trained: T5ForConditionalGeneration, held_out: Batches
    ) -> None:
        plan = Blueprint.plan(shape_of(trained), width=24)
        noise, other = (build_student(trained, plan, initialisation="random", seed=seed).model for seed in (1, 2))
        closer, farther = sorted((noise, other), key=lambda student: kl(student, trained, held_out))
        with pytest.raises(StudentError, match=r"got a divergence of \d+\.\d{3} nats per token, accepted less than"):
            check_student_start(farther, trained, held_out, closer)

    def test_a_broken_student_is_refused(self, trained: T5ForConditionalGeneration, held_out: Batches) -> None:
        plan = Blueprint.plan(shape_of(trained), width=24)
        noise, broken = (build_student(trained, plan, initialisation="random").model for _ in range(2))
        broken.decoder.final_layer_norm.weight.data.fill_(float("nan"))
        with pytest.raises(StudentError, match="got a divergence of nan"):
            check_student_start(broken, trained, held_out, noise)


@torch.no_grad()
def kl(student: T5ForConditionalGeneration, teacher: T5ForConditionalGeneration, batches: Batches) -> float:
    total = 0.0
    for source, mask, labels in batches:
        p, q = (
            torch.softmax(model(input_ids=source, attention_mask=mask, labels=labels).logits, -1)
            for model in (teacher, student)
        )
        total += (p * (p / q).log()).sum().item()
    return total


class TestCTranslate2:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        pieces = [(PAD, 0.0), (EOS, 0.0), (UNK, 0.0)] + [(f"▁{number}", -float(number)) for number in range(3, 40)]
        serve_pieces(pieces).save_pretrained(tmp_path / "student")
        return tmp_path

    @pytest.mark.parametrize("kind", [{}, {"ties_head": False}, {"scales_output": False}], ids=str)
    def test_decodes_a_student_as_transformers_does(
        self, make_teacher: MakeTeacher, batches: Batches, folder: Path, kind: dict[str, bool]
    ) -> None:
        teacher = make_teacher(**kind)
        plan = Blueprint.plan(shape_of(teacher), width=15, decoder_layers=2, heads=3, feed_forward_width=21)
        student = build_student(teacher, plan, measure_moments(teacher, batches)).model
        student.save_pretrained(folder / "student")
        ctranslate2.converters.TransformersConverter(str(folder / "student")).convert(str(folder / "converted"))
        translator = ctranslate2.Translator(str(folder / "converted"), intra_threads=1)
        vocabulary = [PAD, EOS, UNK, *(f"▁{number}" for number in range(3, 40))]
        source = torch.randint(3, 40, (12, 6), generator=torch.Generator().manual_seed(4))
        expected = student.generate(
            source, attention_mask=torch.ones_like(source), max_length=None, max_new_tokens=8, num_beams=3,
            early_stopping=True, do_sample=False,
        )  # fmt: skip
        found = translator.translate_batch(
            [[vocabulary[i] for i in row] for row in source.tolist()], beam_size=3, max_decoding_length=8
        )
        assert [result.hypotheses[0] for result in found] == [
            [vocabulary[i] for i in itertools.takewhile(lambda i: i != 1, row[1:])] for row in expected.tolist()
        ]
