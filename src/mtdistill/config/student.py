"""The section ``student``. Imported by config and config.run; imports config.section and config.wording."""

import itertools
import math
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from mtdistill.config.section import Section
from mtdistill.config.wording import refusal
from mtdistill.errors import ConfigError
from mtdistill.messages import tr

REFERENCE_WIDTH = 256  # the teacher width that the presets' table of widths is written for


class StudentConfig(Section):
    """The shape of the student and where its first weights come from."""

    width_ratio: float = Field(gt=0, le=1)
    """Student width divided by teacher width."""
    width_multiple: int = Field(default=8, ge=1, le=256)
    """The width is rounded to a multiple of this."""
    width_at_256: int | None = Field(default=None, ge=1, le=REFERENCE_WIDTH)
    """Width for a teacher that is 256 wide; None: by the ratio, as for every other teacher."""
    width: int | None = Field(default=None, ge=1, le=65_536)
    """Width for any teacher; goes before `width_at_256` and the ratio."""
    encoder_layers: int | None = Field(default=None, ge=1, le=1000)
    """How many encoder layers are kept, at most; None: all."""
    decoder_layers: int | None = Field(default=None, ge=1, le=1000)
    """How many decoder layers are kept, at most; None: all."""
    kept_encoder_layers: tuple[int, ...] | None = Field(default=None, min_length=1, strict=False)
    """Which teacher encoder layers are kept, counted from 0, ascending; None: chosen by `encoder_layers`."""
    kept_decoder_layers: tuple[int, ...] | None = Field(default=None, min_length=1, strict=False)
    """Which teacher decoder layers are kept, counted from 0, ascending; None: chosen by `decoder_layers`."""
    heads: int | None = Field(default=None, ge=1, le=1024)
    """Attention heads per layer, at most; None: the teacher's."""
    d_ff: int | None = Field(default=None, ge=1, le=1_000_000)
    """Feed-forward width, at most; None: the teacher's."""
    tie_inputs: bool | None = None
    """Read source and target from one embedding table, where the teacher does. One of its own for the source costs
    vocabulary x width parameters and no time, and lets encoder and decoder keep different directions; None: its own where
    the student is narrower than the teacher and reaches `expected.compression_ratio` with it."""
    initialisation: Literal["slice", "select", "random"] = "slice"
    """First weights: a rotated slice of the teacher, a selection of its channels, or noise."""

    @field_validator("width_at_256")
    @classmethod
    def _agrees_with_ratio(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and {"width_ratio", "width_multiple"} <= info.data.keys():
            wanted = info.data["width_ratio"] * REFERENCE_WIDTH
            if abs(value - wanted) > info.data["width_multiple"]:
                raise refusal(
                    value,
                    en=f"about {wanted:g}, which student.width_ratio asks for, or none",
                    zh=f"与 student.width_ratio 相符的约 {wanted:g}，或不设此项",
                )
        return value

    @field_validator("kept_encoder_layers", "kept_decoder_layers")
    @classmethod
    def _are_layers(cls, value: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        if value is None:
            return value
        if value[0] < 0 or any(a >= b for a, b in itertools.pairwise(value)):
            raise refusal(
                value, en="ascending layer numbers from 0 such as [0, 2, 5]", zh="从 0 开始的升序层号，例如 [0, 2, 5]"
            )
        number = str(info.field_name).removeprefix("kept_")
        if info.data.get(number) not in (None, len(value)):
            count = info.data[number]
            raise refusal(
                value, en=f"{count} layers, as student.{number} says", zh=f"{count} 层（student.{number} 的值）"
            )
        return value

    def resolve_width(self, teacher_width: int) -> int:
        """Student width (d_model) for a teacher of this width.

        Args:
            teacher_width: the teacher's d_model, > 0.

        Returns:
            `width` if given; `width_at_256` if given and the teacher is 256 wide; else the multiple of
            `width_multiple` nearest to ratio x teacher width, at least one multiple and at most the teacher's width.

        Raises:
            ConfigError: `width` is larger than the teacher's.

        >>> StudentConfig(width_ratio=0.6).resolve_width(512)
        304
        """
        if self.width is not None:
            if self.width > teacher_width:
                raise ConfigError(
                    tr(
                        en=f"student.width: got {self.width}, accepted 1 to {teacher_width}, the teacher's. Lower it.",
                        zh=f"student.width：得到 {self.width}，最大为教师模型的宽度 {teacher_width}。请调小。",
                    )
                )
            return self.width
        if self.width_at_256 is not None and teacher_width == REFERENCE_WIDTH:
            return self.width_at_256
        multiples = max(1, math.floor(self.width_ratio * teacher_width / self.width_multiple + 0.5))
        return min(multiples * self.width_multiple, teacher_width)
