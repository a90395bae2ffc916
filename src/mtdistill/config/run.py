"""All settings of a run, with the sections that need few checks.

Imported by config and config.loading; imports config.data, config.section, config.student and config.wording.
"""

import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from mtdistill.config.data import DataConfig
from mtdistill.config.section import Section
from mtdistill.config.student import StudentConfig
from mtdistill.config.wording import refusal

_FOLDER_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class TeacherConfig(Section):
    """The model that is distilled."""

    path: str = "reference"
    """A Hugging Face folder, or "reference": the zh-en teacher that comes with the package."""
    min_bleu: float = Field(default=5.0, ge=0, le=100)
    """BLEU on 100 validation sentences below which the teacher is refused."""
    targets: Literal["auto", "live", "cached"] = "auto"
    """Whether the teacher runs in every update or once, its states kept on disk; auto: what takes less time."""
    pseudo_targets: int = Field(default=0, ge=0, le=16)
    """The teacher's translations of every training source that are trained on beside the gold text, the closest to it; each
    adds up to as many updates as the gold text has, unless they take turns."""
    pseudo_targets_take_turns: bool = False
    """An epoch has as many pairs as the gold text, gold text and translations by turns, and so as many updates; else it has
    all of them."""


class KdConfig(Section):
    """The training objective: alpha x divergence from the teacher + beta x cross-entropy with the gold text."""

    temperature: float = Field(gt=0, le=100)
    """Softening of both distributions in the divergence, dimensionless; 1 leaves them unchanged."""
    final_temperature: float | None = Field(default=None, gt=0, le=100)
    """Temperature at the end of the run, reached linearly; None: constant."""
    alpha: float = Field(ge=0, le=1)
    """Weight of the divergence from the teacher (KD)."""
    beta: float = Field(ge=0, le=1)
    """Weight of the cross-entropy with the gold text."""
    label_smoothing: float = Field(ge=0, lt=1)
    """Share of the gold target that is spread evenly over the pieces that the loss looks at."""
    state_weight: float = Field(default=0.0, ge=0, le=10_000)
    """Weight of 1 - cosine between the last states of student and teacher at the start; 0 after four fifths of the run."""
    other_pieces_every: int = Field(default=8, ge=1, le=1000)
    """Both losses look at a piece that only sources have in one of so many updates; 1: in all."""

    @field_validator("beta")
    @classmethod
    def _leaves_an_objective(cls, value: float, info: ValidationInfo) -> float:
        if value == 0 and info.data.get("alpha") == 0:
            raise refusal(value, en="more than 0, because kd.alpha is 0", zh="大于 0 的数，因为 kd.alpha 为 0")
        return value


class TrainingConfig(Section):
    """How long, how fast and on what the student is trained."""

    epochs: int = Field(ge=1, le=100_000)
    """Passes over the training data."""
    batch_size: int = Field(ge=1, le=65_536)
    """Sentences per micro-batch."""
    gradient_accumulation: int = Field(ge=1, le=4096)
    """Micro-batches per update; the effective batch is this times `batch_size`."""
    learning_rate: float = Field(gt=0, le=1)
    """Highest learning rate, reached after the warm-up."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Rule for the matrices inside the layers; everything else always moves by AdamW."""
    embedding_learning_rate_ratio: float = Field(default=1.0, gt=0, le=1000)
    """Learning rate of the embedding table divided by `learning_rate`."""
    max_sequence_length: int = Field(ge=2, le=4096)
    """Longest source or target that is trained on, in tokens with the end mark."""
    weight_decay: float = Field(ge=0, le=1)
    """AdamW's decoupled weight decay."""
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of all updates in which the learning rate rises from 0."""
    max_gradient_norm: float = Field(default=1.0, gt=0, le=1000)
    """Gradients with a larger L2 norm are scaled down to it."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations that are dropped in training."""
    data_ratio: float = Field(gt=0, le=1)
    """Share of the training split that is used."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay per update of a running average of the weights, at most (1 + n) / (10 + n) in update n; None: no average."""
    seed: int = Field(default=1, ge=0, le=2**32 - 1)
    """Seed of everything that is drawn at random."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of matrix products in training; auto: what is fastest on this computer."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads; None: one per physical core."""
    recovery: bool = True
    """Skip bad updates, go back to a good state and lower the learning rate where training fails."""
    evaluations: int = Field(ge=1, le=10_000)
    """How many times during the run the validation score is taken."""
    checkpoints_kept: int = Field(default=2, ge=1, le=1000)
    """How many checkpoints to resume from are kept, the newest ones; the best student is kept elsewhere."""
    validation_sentences: int = Field(default=500, ge=1, le=1_000_000)
    """Validation sentences that are translated for each validation score."""


class ExpectedConfig(Section):
    """What the preset promises; the report card holds the result against it."""

    compression_ratio: float = Field(gt=0, le=10_000)
    """Teacher parameters divided by student parameters."""
    success_rate: float = Field(gt=0, le=1)
    """Share of test sentences whose translation passes every check."""
    speed_up: float = Field(gt=0, le=10_000)
    """Teacher seconds divided by student seconds for the same sentences."""
    quality_retention: float = Field(gt=0, le=10)
    """Student BLEU divided by teacher BLEU on the test split."""
    time_budget_minutes: float = Field(gt=0, le=1_000_000)
    """Minutes a run may take."""


class RunConfig(Section):
    """All settings of a run."""

    preset: str
    """Name of the preset that the settings started from."""
    name: str | None = None
    """What the run folder is called after ``distillation-``; None: as the preset."""
    output: str = "train_process"
    """Folder that run folders are made in."""
    data: DataConfig = DataConfig()
    """Which text is read, and how."""
    teacher: TeacherConfig = TeacherConfig()
    """The model that is distilled."""
    student: StudentConfig
    """The shape of the student."""
    kd: KdConfig
    """The training objective."""
    training: TrainingConfig
    """How the student is trained."""
    expected: ExpectedConfig
    """What the preset promises."""

    @field_validator("preset", "name")
    @classmethod
    def _is_folder_word(cls, value: str | None) -> str | None:
        if value is not None and not _FOLDER_WORD.fullmatch(value):
            raise refusal(value, en="up to 64 letters, digits, - and _", zh="最多 64 个字母、数字、- 和 _")
        return value

    @property
    def run_name(self) -> str:
        """What the run folder is called after ``distillation-``."""
        return self.name or self.preset
