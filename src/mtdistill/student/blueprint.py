"""Which parts of the teacher a student keeps: index maths only, no weights.

A `Blueprint` is small, immutable, printable and checked when it is made; `mtdistill.student.slicing` turns it into
weights. Knows nothing of torch. Imported by distillation, student.projection and student.slicing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mtdistill.errors import StudentError
from mtdistill.messages import tr

if TYPE_CHECKING:
    from transformers import T5Config

UnitSets = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TeacherShape:
    """The sizes of a T5 teacher; widths in channels, `feed_forward_width` in hidden units of one layer."""

    vocabulary_size: int
    width: int
    heads: int
    head_width: int
    feed_forward_width: int
    encoder_layers: int
    decoder_layers: int
    relative_buckets: int
    gated: bool
    ties_head: bool = True
    ties_inputs: bool = True

    @classmethod
    def from_config(cls, config: T5Config, *, ties_head: bool = True, ties_inputs: bool = True) -> TeacherShape:
        """The shape that a T5 configuration describes.

        Args:
            config: of a T5 model. Its own `tie_word_embeddings` is not read, because it does not say what is tied
                (transformers 5 forces it to true); `mtdistill.student.slicing.shape_of` looks at the weights.
            ties_head: the output head is the embedding table of the target.
            ties_inputs: source and target are read from one embedding table.
        """
        return cls(
            vocabulary_size=config.vocab_size,
            width=config.d_model,
            heads=config.num_heads,
            head_width=config.d_kv,
            feed_forward_width=config.d_ff,
            encoder_layers=config.num_layers,
            decoder_layers=config.num_decoder_layers or config.num_layers,
            relative_buckets=config.relative_attention_num_buckets,
            gated=config.is_gated_act,
            ties_head=ties_head,
            ties_inputs=ties_inputs,
        )


@dataclass(frozen=True)
class Blueprint:
    """What a student keeps of its teacher. `Blueprint.plan` fills in what is left open.

    Attributes:
        teacher: sizes of the teacher.
        width: channels of the student's residual stream, in [1, teacher.width]; any integer works.
        kept_encoder_layers: teacher layer numbers in rising order, counted from 0.
        kept_decoder_layers: likewise.
        heads: attention heads of every layer, in [1, teacher.heads]; a T5 has one number for both stacks.
        feed_forward_width: hidden units of every feed-forward layer, in [1, teacher.feed_forward_width].
        ties_inputs: source and target are read from one embedding table, as in the teacher. Else the source has a table of
            its own, and encoder and decoder keep different directions of their streams.
        kept_encoder_heads: which self-attention heads, one set for all layers, because all layers share the table of
            relative positions by head number. None leaves the choice to slicing.
        kept_decoder_heads: likewise, for self-attention; heads that read the source have no such table, and slicing
            chooses them layer by layer.
        kept_encoder_units: which feed-forward units, one set per kept layer. None leaves the choice to slicing.
        kept_decoder_units: likewise.
    """

    teacher: TeacherShape
    width: int
    kept_encoder_layers: tuple[int, ...]
    kept_decoder_layers: tuple[int, ...]
    heads: int
    feed_forward_width: int
    ties_inputs: bool
    kept_encoder_heads: tuple[int, ...] | None = None
    kept_decoder_heads: tuple[int, ...] | None = None
    kept_encoder_units: UnitSets | None = None
    kept_decoder_units: UnitSets | None = None

    def __post_init__(self) -> None:
        """Check everything at once; one StudentError lists every field that does not fit the teacher."""
        problems = _problems(self)
        if problems:
            listed = "\n  ".join(problems)
            message = tr(
                en=f"a student of this shape cannot be cut out of the teacher:\n  {listed}\n"
                "Change these settings under [student].",
                zh=f"无法从教师模型中切出这种形状的学生模型：\n  {listed}\n请修改 [student] 下的这些设置。",
            )
            raise StudentError(message)

    @classmethod
    def keep_everything(cls, teacher: TeacherShape) -> Blueprint:
        """The student that is the teacher."""
        return cls.plan(teacher)

    @classmethod
    def plan(
        cls,
        teacher: TeacherShape,
        *,
        width: int | None = None,
        encoder_layers: int | None = None,
        decoder_layers: int | None = None,
        kept_encoder_layers: Sequence[int] | None = None,
        kept_decoder_layers: Sequence[int] | None = None,
        heads: int | None = None,
        feed_forward_width: int | None = None,
        ties_inputs: bool = True,
    ) -> Blueprint:
        """A blueprint from counts; what is None stays as large as in the teacher.

        Args:
            teacher: sizes of the teacher.
            width: channels of the residual stream.
            encoder_layers: how many layers stay, spread by `spaced_layers`.
            decoder_layers: likewise.
            kept_encoder_layers: exactly these layers; wins over `encoder_layers`.
            kept_decoder_layers: likewise.
            heads: attention heads of every layer.
            feed_forward_width: hidden units of every feed-forward layer.
            ties_inputs: False gives the source a table of its own also where the teacher has one for both.

        Raises:
            StudentError: lists every setting that does not fit the teacher.
        """

        def layers(explicit: Sequence[int] | None, count: int | None, total: int) -> tuple[int, ...]:
            if explicit is not None:
                return tuple(explicit)
            count = total if count is None else count
            # A count that the teacher does not have goes through as it is, so that it is reported with the rest.
            return spaced_layers(total, count) if 1 <= count <= total else tuple(range(count))

        return cls(
            teacher=teacher,
            width=teacher.width if width is None else width,
            kept_encoder_layers=layers(kept_encoder_layers, encoder_layers, teacher.encoder_layers),
            kept_decoder_layers=layers(kept_decoder_layers, decoder_layers, teacher.decoder_layers),
            heads=teacher.heads if heads is None else heads,
            feed_forward_width=teacher.feed_forward_width if feed_forward_width is None else feed_forward_width,
            ties_inputs=ties_inputs and teacher.ties_inputs,
        )

    @property
    def parameter_count(self) -> int:
        """Parameters of the student, every tied table counted once."""
        teacher, width = self.teacher, self.width
        tables = 1 + (not self.ties_inputs) + (not teacher.ties_head)
        attention = 4 * width * self.heads * teacher.head_width
        feed_forward = (3 if teacher.gated else 2) * width * self.feed_forward_width
        encoder = len(self.kept_encoder_layers) * (attention + feed_forward + 2 * width)
        decoder = len(self.kept_decoder_layers) * (2 * attention + feed_forward + 3 * width)
        final_norms, position_tables = 2 * width, 2 * teacher.relative_buckets * self.heads
        return tables * teacher.vocabulary_size * width + encoder + decoder + final_norms + position_tables

    @property
    def compression_ratio(self) -> float:
        """Teacher parameters / student parameters; above 1 for a smaller student."""
        return Blueprint.keep_everything(self.teacher).parameter_count / self.parameter_count

    @property
    def keeps_everything(self) -> bool:
        """The student is as wide and as deep as the teacher."""
        return self.parameter_count == Blueprint.keep_everything(self.teacher).parameter_count

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and TOML."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for logs and reports."""
        teacher = self.teacher

        def layers(kept: tuple[int, ...], total: int) -> str:
            return f"{len(kept)}" if len(kept) == total else f"{len(kept)} of {total} ({', '.join(map(str, kept))})"

        return (
            f"width {self.width} of {teacher.width}, "
            f"encoder layers {layers(self.kept_encoder_layers, teacher.encoder_layers)}, "
            f"decoder layers {layers(self.kept_decoder_layers, teacher.decoder_layers)}, "
            f"heads {self.heads} of {teacher.heads}, "
            f"feed-forward {self.feed_forward_width} of {teacher.feed_forward_width}, "
            f"{self.parameter_count / 1e6:.2f} M parameters ({self.compression_ratio:.2f}x smaller)"
        )


def spaced_layers(total: int, count: int) -> tuple[int, ...]:
    """`count` of `total` layer numbers, as far apart as possible, the first and the last among them.

    Source: Shleifer & Rush 2020 (arXiv:2010.13002); the same sets as Hugging Face's make_student.py for 6 layers.

    >>> [spaced_layers(6, count) for count in (1, 2, 3, 4)]
    [(0,), (0, 5), (0, 2, 5), (0, 1, 3, 5)]
    """
    if not 1 <= count <= total:
        raise ValueError(f"count must be in [1, {total}], got {count}")
    return (0,) if count == 1 else tuple(i * (total - 1) // (count - 1) for i in range(count))


def _problems(blueprint: Blueprint) -> list[str]:
    """Every setting that does not fit the teacher, as one line of text each."""
    teacher = blueprint.teacher
    found = []
    for name, value, largest in (
        ("width", blueprint.width, teacher.width),
        ("heads", blueprint.heads, teacher.heads),
        ("feed_forward_width", blueprint.feed_forward_width, teacher.feed_forward_width),
    ):
        if not 1 <= value <= largest:
            problem = tr(
                en=f"{name}: got {value}, accepted 1 to {largest} (the teacher's)",
                zh=f"{name}：得到 {value}，可接受 1 到 {largest}（教师模型的大小）",
            )
            found.append(problem)
    if blueprint.ties_inputs and not teacher.ties_inputs:
        found.append(
            tr(
                en="ties_inputs: got True, accepted False (the teacher's)",
                zh="ties_inputs：得到 True，只接受 False（教师模型的值）",
            )
        )
    for stack, layers, total, heads, units in (
        ("encoder", blueprint.kept_encoder_layers, teacher.encoder_layers,
         blueprint.kept_encoder_heads, blueprint.kept_encoder_units),
        ("decoder", blueprint.kept_decoder_layers, teacher.decoder_layers,
         blueprint.kept_decoder_heads, blueprint.kept_decoder_units),
    ):  # fmt: skip
        if not _is_selection(layers, total):
            problem = tr(
                en=f"kept_{stack}_layers: got {len(layers)} layers ({_listed(layers)}), accepted at least one, numbers "
                f"from 0 to {total - 1} in rising order, none twice",
                zh=f"kept_{stack}_layers：得到 {len(layers)} 层（{_listed(layers)}），需要至少一层，"
                f"编号从 0 到 {total - 1}，递增且不重复",
            )
            found.append(problem)
        if heads is not None and not (_is_selection(heads, teacher.heads) and len(heads) == blueprint.heads):
            problem = tr(
                en=f"kept_{stack}_heads: got {_listed(heads)}, accepted {blueprint.heads} numbers from 0 to "
                f"{teacher.heads - 1} in rising order",
                zh=f"kept_{stack}_heads：得到 {_listed(heads)}，需要 {blueprint.heads} 个从 0 到 {teacher.heads - 1} "
                "的递增编号",
            )
            found.append(problem)
        if units is not None and not (
            len(units) == len(layers)
            and all(_is_selection(kept, teacher.feed_forward_width) for kept in units)
            and all(len(kept) == blueprint.feed_forward_width for kept in units)
        ):
            sizes = _listed([len(kept) for kept in units])
            problem = tr(
                en=f"kept_{stack}_units: got {len(units)} sets of {sizes} units, accepted {len(layers)} sets of "
                f"{blueprint.feed_forward_width} numbers from 0 to {teacher.feed_forward_width - 1} in rising order",
                zh=f"kept_{stack}_units：得到 {len(units)} 组，各有 {sizes} 个单元，需要 {len(layers)} 组，每组 "
                f"{blueprint.feed_forward_width} 个从 0 到 {teacher.feed_forward_width - 1} 的递增编号",
            )
            found.append(problem)
    return found


def _is_selection(numbers: Sequence[int], total: int) -> bool:
    return len(numbers) > 0 and set(numbers) <= set(range(total)) and list(numbers) == sorted(set(numbers))


def _listed(numbers: Sequence[int], longest: int = 12) -> str:
    return ", ".join(map(str, numbers[:longest])) + (", ..." if len(numbers) > longest else "")
