"""The maths of cutting a T5 down: every student weight as a product of teacher weights and a basis of the stream.

A basis is a (teacher width, student width) matrix with orthonormal columns, one per stack. What reads the stream
becomes W diag(g) Q, with g the gain of the norm in front of it; what writes the stream becomes Qᵀ W. The student's
norms hold one number each, which restores the length that the dropped directions took away. Imported by
student.slicing; imports student.blueprint and student.moments.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mtdistill.student.blueprint import Blueprint
from mtdistill.student.moments import Moments

# Columns of the result: the directions of the stream to keep, given its second moment (width, width) and their number.
BasisChoice = Callable[[Tensor, int], Tensor]

# Added to the diagonal when removed units are compensated, in units of its mean. Without it, units that always fire
# together could not be told apart.
RIDGE = 1e-3
FINAL_NORM = "decoder.final_layer_norm"  # what the output head reads


class Projection:
    """A teacher seen through a basis of its residual stream; `weights` are those of the student."""

    def __init__(
        self,
        teacher: T5ForConditionalGeneration,
        blueprint: Blueprint,
        moments: Moments,
        choose_basis: BasisChoice,
        *,
        compensates: bool,
    ) -> None:
        """Choose the directions.

        Args:
            teacher: a T5.
            blueprint: checked against this teacher already.
            moments: of this teacher.
            choose_basis: picks the directions for each stack; where the student's stacks share a table it is given the same
                moment for both, and must choose the same.
            compensates: where units or heads are removed, refit what is left of `wo` and `o` by least squares.
        """
        self.blueprint = blueprint
        self.moments = moments
        self.compensates = compensates
        self.source = {name: weight.detach().cpu().double() for name, weight in teacher.state_dict().items()}
        self.layers = {"encoder": blueprint.kept_encoder_layers, "decoder": blueprint.kept_decoder_layers}
        # What the teacher multiplies its last states by. The student always scales by width^-½, because CTranslate2
        # does so whatever the configuration says; the final norm makes up for the difference.
        self.output_scale = blueprint.teacher.width**-0.5 if teacher.config.scale_decoder_outputs else 1.0

        seen = {stack: self._mean_moment(stack) for stack in self.layers}
        if blueprint.ties_inputs:
            seen = dict.fromkeys(seen, (seen["encoder"] + seen["decoder"]) / 2)
        # With nothing to leave out there is nothing to choose, and a tied head stays exact whatever its gains.
        keeps_width = blueprint.width == blueprint.teacher.width
        self.basis = {
            stack: torch.eye(len(moment), dtype=moment.dtype) if keeps_width else choose_basis(moment, blueprint.width)
            for stack, moment in seen.items()
        }
        self.kept_energy = {
            student_norm: float((self.basis[stack] * (moments.streams[norm] @ self.basis[stack])).sum())
            for stack in self.layers
            for norm, student_norm in self._norms(stack)
        }

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value, float64, of every student parameter."""
        for stack in self.layers:
            yield from self._stack(stack)
        yield from self._tables()

    def readout(self, final_gain: Tensor) -> Tensor:
        """(teacher width, student width), float64: takes the states that the teacher's head reads to the student's.

        The states before any training would be these, up to their length, if the kept directions lost nothing. A
        channel that the teacher's final norm silences cannot be brought back and is left out.

        Args:
            final_gain: (student width,), of the student's last norm, out of `weights`.
        """
        gain = self.source[f"{FINAL_NORM}.weight"]
        inverse = torch.where(gain == 0, 0.0, 1 / gain)
        return inverse[:, None] * self.basis["decoder"] * final_gain

    def _norms(self, stack: str) -> Iterator[tuple[str, str]]:
        """Norms on the kept path: module name in the teacher, module name in the student."""
        for student_layer, layer in enumerate(self.layers[stack]):
            for part in range(2 if stack == "encoder" else 3):
                norm = f"layer.{part}.layer_norm"
                yield f"{stack}.block.{layer}.{norm}", f"{stack}.block.{student_layer}.{norm}"
        yield f"{stack}.final_layer_norm", f"{stack}.final_layer_norm"

    def _mean_moment(self, stack: str) -> Tensor:
        moments = [self.moments.streams[norm] for norm, _ in self._norms(stack)]
        return torch.stack(moments).mean(0)

    def _norm_gain(self, student_norm: str) -> float:
        """An RMS norm divides by the length of what is left; this is the length it should have divided by."""
        ratio = self.blueprint.teacher.width / self.blueprint.width
        return math.sqrt(ratio * self.kept_energy[student_norm])

    def _reader(self, name: str, norm: str, rows: Tensor, stack: str) -> Tensor:
        gained = self.source[f"{name}.weight"][rows] * self.source[f"{norm}.weight"]
        return torch.matmul(gained, self.basis[stack])

    def _writer(self, name: str, columns: Tensor, stack: str) -> Tensor:
        weight = torch.matmul(self.basis[stack].T, self.source[f"{name}.weight"])
        kept = weight.index_select(1, columns)
        if not self.compensates or len(columns) == weight.shape[1]:
            return kept
        # What the removed units wrote, as far as the kept ones foretell it.
        removed = torch.ones(weight.shape[1]).index_fill_(0, columns, 0).nonzero().flatten()
        moment = self.moments.inner[name]
        among_kept = moment[columns][:, columns]
        if not among_kept.diagonal().mean() > 0:  # the kept ones are never active, and foretell nothing
            return kept
        ridge = RIDGE * among_kept.diagonal().mean() * torch.eye(len(columns), dtype=moment.dtype)
        foretold = torch.linalg.solve(among_kept + ridge, moment[columns][:, removed])
        return kept + torch.matmul(weight.index_select(1, removed), foretold.T)

    def _stack(self, stack: str) -> Iterator[tuple[str, Tensor]]:
        layers = self.layers[stack]
        self_attention = [f"{stack}.block.{layer}.layer.0.SelfAttention" for layer in layers]
        explicit = getattr(self.blueprint, f"kept_{stack}_heads")
        heads = self._strongest_heads(self_attention, stack) if explicit is None else torch.tensor(explicit)
        # Also when layer 0 is dropped: all layers were trained with its table.
        positions = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield positions, self.source[positions][:, heads]
        for _, student_norm in self._norms(stack):
            gain = torch.full((self.blueprint.width,), self._norm_gain(student_norm), dtype=torch.float64)
            yield f"{student_norm}.weight", gain
        for student_layer, layer in enumerate(layers):
            teacher_block, block = f"{stack}.block.{layer}.layer", f"{stack}.block.{student_layer}.layer"
            yield from self._attention(f"{teacher_block}.0", f"{block}.0", "SelfAttention", heads)
            if stack == "decoder":
                cross_heads = self._strongest_heads([f"{teacher_block}.1.EncDecAttention"], stack)
                yield from self._attention(f"{teacher_block}.1", f"{block}.1", "EncDecAttention", cross_heads)
            part = 1 if stack == "encoder" else 2
            yield from self._feed_forward(f"{teacher_block}.{part}", f"{block}.{part}", student_layer)

    def _attention(self, teacher_part: str, part: str, kind: str, heads: Tensor) -> Iterator[tuple[str, Tensor]]:
        stack, norm = part.split(".")[0], f"{teacher_part}.layer_norm"
        # Keys and values of cross-attention read the encoder, whose final norm is thus the one in front of them.
        memory = (stack, norm) if kind == "SelfAttention" else ("encoder", "encoder.final_layer_norm")
        columns = self._head_columns(heads)
        for name, (read_stack, read_norm) in {"q": (stack, norm), "k": memory, "v": memory}.items():
            weight = self._reader(f"{teacher_part}.{kind}.{name}", read_norm, columns, read_stack)
            yield f"{part}.{kind}.{name}.weight", weight
        yield f"{part}.{kind}.o.weight", self._writer(f"{teacher_part}.{kind}.o", columns, stack)

    def _feed_forward(self, teacher_part: str, part: str, student_layer: int) -> Iterator[tuple[str, Tensor]]:
        stack, kind = part.split(".")[0], "DenseReluDense"
        explicit = getattr(self.blueprint, f"kept_{stack}_units")
        wo = f"{teacher_part}.{kind}.wo"
        units = self._strongest_units(wo, stack) if explicit is None else torch.tensor(explicit[student_layer])
        for name in ("wi_0", "wi_1") if self.blueprint.teacher.gated else ("wi",):
            weight = self._reader(f"{teacher_part}.{kind}.{name}", f"{teacher_part}.layer_norm", units, stack)
            yield f"{part}.{kind}.{name}.weight", weight
        yield f"{part}.{kind}.wo.weight", self._writer(wo, units, stack)

    def _tables(self) -> Iterator[tuple[str, Tensor]]:
        teacher, width = self.blueprint.teacher, self.blueprint.width
        table = self.source["decoder.embed_tokens.weight"] @ self.basis["decoder"]
        yield "shared.weight", table
        if not self.blueprint.ties_inputs:
            yield "encoder.embed_tokens.weight", self.source["encoder.embed_tokens.weight"] @ self.basis["encoder"]

        gain = self._norm_gain(FINAL_NORM) * self.output_scale * math.sqrt(width)
        head = (self.source["lm_head.weight"] * self.source[f"{FINAL_NORM}.weight"]) @ self.basis["decoder"]
        if teacher.ties_head:
            # One table cannot hold the head's gains as well. Least squares for each coordinate: exact when the
            # teacher's final gains are all equal, as in teachers that train with them frozen.
            # A coordinate that no word has is of no use to the head either.
            size = (table * table).sum(0)
            fit = torch.where(size > 0, (head * table).sum(0) / size, 0.0)
        else:
            yield "lm_head.weight", head
            fit = torch.ones(width, dtype=torch.float64)
        yield f"{FINAL_NORM}.weight", fit * gain

    def _head_columns(self, heads: Tensor) -> Tensor:
        size = self.blueprint.teacher.head_width
        return (heads[:, None] * size + torch.arange(size)).flatten()

    def _strongest_heads(self, attentions: Sequence[str], stack: str) -> Tensor:
        """The heads that write most energy into the kept directions, as a share of each layer, over these layers."""
        teacher = self.blueprint.teacher
        shares = torch.zeros(teacher.heads, dtype=torch.float64)
        for attention in attentions:
            moment = self.moments.inner[f"{attention}.o"]
            weight = self.basis[stack].T @ self.source[f"{attention}.o.weight"]
            energy = torch.stack(
                [
                    (weight[:, head] * (weight[:, head] @ moment[head][:, head])).sum()
                    for head in torch.arange(teacher.heads * teacher.head_width).view(teacher.heads, teacher.head_width)
                ]
            )
            if energy.sum() > 0:  # else the layer writes nothing, and has no say
                shares += energy / energy.sum()
        strongest: Tensor = shares.topk(self.blueprint.heads).indices.sort().values
        return strongest

    def _strongest_units(self, wo: str, stack: str) -> Tensor:
        """The units that write most energy into the kept directions: E[a²] |Qᵀ w_out|²."""
        written = (self.basis[stack].T @ self.source[f"{wo}.weight"]).square().sum(0)
        energy = self.moments.inner[wo].diagonal() * written
        strongest: Tensor = energy.topk(self.blueprint.feed_forward_width).indices.sort().values
        return strongest
