"""Student weights out of teacher weights and a blueprint, by a named initialisation.

`slice`, the default, keeps the main directions of the teacher's residual stream. For a T5 this is exact up to what is
left out: its norms are RMS norms without bias, nothing else touches the stream coordinate by coordinate but the gains
of the final norm before a tied head (decision 4), and positions enter attention scores only. `select` keeps the
strongest channels instead, `random` only the shape. float64 inside, float32 out. Imported by distillation; imports
student.blueprint, student.moments and student.projection.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from mtdistill.errors import StudentError
from mtdistill.messages import listed, tr
from mtdistill.student.blueprint import Blueprint, TeacherShape
from mtdistill.student.moments import Moments
from mtdistill.student.projection import FINAL_NORM, BasisChoice, Projection


@dataclass(frozen=True)
class StudentBuild:
    """A new student and how it was made.

    Attributes:
        model: float32, in evaluation mode.
        kept_energy: for each norm of the student, the share in [0, 1] of its input's energy in the teacher that the
            kept directions hold; empty for a random student.
        initialisation: a name out of `INITIALISATIONS`.
        blueprint: what it was built from.
        readout: (teacher width, student width), the teacher's last states to the student's (`Projection.readout`);
            None for a random student, which has nothing in common with its teacher.
    """

    model: T5ForConditionalGeneration
    kept_energy: dict[str, float]
    initialisation: str
    blueprint: Blueprint
    readout: Tensor | None


def shape_of(teacher: T5ForConditionalGeneration) -> TeacherShape:
    """The teacher's sizes, and which tables it ties according to its weights, since its configuration does not tell."""
    table = teacher.decoder.embed_tokens.weight
    return TeacherShape.from_config(
        teacher.config,
        ties_head=teacher.lm_head.weight is table,
        ties_inputs=teacher.encoder.embed_tokens.weight is table,
    )


@torch.no_grad()
def build_student(
    teacher: T5ForConditionalGeneration,
    blueprint: Blueprint,
    moments: Moments | None = None,
    initialisation: str = "slice",
    seed: int = 1,
    *,
    compensates: bool = True,
) -> StudentBuild:
    """A student of the blueprint's shape, with weights made from the teacher's.

    Args:
        teacher: a T5; not changed.
        blueprint: what to keep of it.
        moments: of this teacher, from `measure_moments`; only "random" does without.
        initialisation: a name out of `INITIALISATIONS`.
        seed: of the random weights. The global random state is left as it was.
        compensates: where feed-forward units or heads are removed, refit the rest of that layer to its full output.

    Raises:
        StudentError: unknown initialisation, no moments, another teacher's blueprint, or weights left unfilled.
    """
    shape = shape_of(teacher)
    if initialisation not in INITIALISATIONS:
        accepted = listed(INITIALISATIONS)
        message = tr(
            en=f"the student could not be built: got initialisation {initialisation!r}, accepted {accepted}. "
            "Set student.initialisation to one of these.",
            zh=f"无法构建学生模型：初始化方式为 {initialisation!r}，可用的有 {accepted}。"
            "请把 student.initialisation 设为其中之一。",
        )
        raise StudentError(message)
    if blueprint.teacher != shape:
        message = tr(
            en=f"the student could not be built: the blueprint is for {blueprint.teacher}, the teacher is {shape}. "
            "Plan it anew with Blueprint.plan(shape_of(teacher), ...).",
            zh=f"无法构建学生模型：蓝图对应 {blueprint.teacher}，而教师模型是 {shape}。"
            "请用 Blueprint.plan(shape_of(teacher), ...) 重新规划。",
        )
        raise StudentError(message)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = _fresh_student(teacher, blueprint)
    choose_basis = INITIALISATIONS[initialisation]
    kept_energy: dict[str, float] = {}
    readout = None
    if choose_basis is not None:
        if moments is None:
            message = tr(
                en=f"the student could not be built: got no moments, {initialisation!r} needs them. "
                "Pass measure_moments(teacher, batches), or use initialisation 'random'.",
                zh=f"无法构建学生模型：没有给出 moments，而 {initialisation!r} 需要它。"
                "请传入 measure_moments(teacher, batches)，或使用初始化方式 'random'。",
            )
            raise StudentError(message)
        projection = Projection(teacher, blueprint, moments, choose_basis, compensates=compensates)
        weights = dict(projection.weights())
        fill(student, weights)
        kept_energy, readout = projection.kept_energy, projection.readout(weights[f"{FINAL_NORM}.weight"]).float()
    student.train(False)
    return StudentBuild(student, kept_energy, initialisation, blueprint, readout)


@torch.no_grad()
def fill(student: T5ForConditionalGeneration, weights: dict[str, Tensor]) -> None:
    """Copy weights into a student; nothing may be left as it was.

    Args:
        student: changed in place.
        weights: by parameter name, as `named_parameters` lists them (a tied table has one name).

    Raises:
        StudentError: lists every parameter without a weight of its shape, and every weight without a parameter.
    """
    wanted = {name: tuple(parameter.shape) for name, parameter in student.named_parameters()}
    got = {name: tuple(weight.shape) for name, weight in weights.items()}
    wrong = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
    if wrong:
        shapes = "\n  ".join(f"{name}: {got.get(name, '-')}, {wanted.get(name, '-')}" for name in wrong)
        message = tr(
            en=f"{len(wrong)} weights of the student were not filled: got, accepted\n  {shapes}\n"
            "Use the teacher that the blueprint was planned for; if you did, this is a bug: please report it.",
            zh=f"学生模型有 {len(wrong)} 个权重没有填充：得到的形状，需要的形状\n  {shapes}\n"
            "请使用蓝图所对应的教师模型；如果已经如此，这是程序缺陷，请反馈。",
        )
        raise StudentError(message)
    for name, parameter in student.named_parameters():
        parameter.copy_(weights[name])


def _fresh_student(teacher: T5ForConditionalGeneration, blueprint: Blueprint) -> T5ForConditionalGeneration:
    config = copy.deepcopy(teacher.config)
    config.d_model = blueprint.width
    config.num_layers = len(blueprint.kept_encoder_layers)
    config.num_decoder_layers = len(blueprint.kept_decoder_layers)
    config.num_heads = blueprint.heads
    config.d_ff = blueprint.feed_forward_width
    # Always so, because CTranslate2 reads neither (see Projection.output_scale); what is tied follows from the weights,
    # as transformers 5 itself does it when it loads a folder.
    config.tie_word_embeddings = config.scale_decoder_outputs = True
    config.dtype = torch.float32
    student: T5ForConditionalGeneration = T5ForConditionalGeneration(config)
    if not blueprint.ties_inputs:
        student.encoder.embed_tokens.weight = nn.Parameter(student.shared.weight.clone())
    if not blueprint.teacher.ties_head:
        student.lm_head.weight = nn.Parameter(student.shared.weight.clone())
    student.generation_config = copy.deepcopy(teacher.generation_config)
    return student


def _main_directions(moment: Tensor, width: int) -> Tensor:
    """The eigenvectors with the largest eigenvalues, largest first."""
    directions: Tensor = torch.linalg.eigh(moment).eigenvectors[:, -width:]
    return directions.flip(-1)


def _strongest_channels(moment: Tensor, width: int) -> Tensor:
    """The coordinates that carry most energy, in the teacher's order."""
    chosen = moment.diagonal().topk(width).indices.sort().values
    return torch.eye(len(moment), dtype=moment.dtype).index_select(1, chosen)


# How the kept directions are chosen; None: no weights are taken from the teacher.
INITIALISATIONS: dict[str, BasisChoice | None] = {
    "slice": _main_directions,
    "select": _strongest_channels,
    "random": None,
}
