"""Translating with ONNX Runtime, from the files that transformers.js reads in a browser.

`mtdistill.export.onnx` writes these files. Imported by export and decoding; imports data, decoding.search and
decoding.translator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np

from mtdistill.data.tokenizer import load_tokenizer
from mtdistill.decoding.search import Floats, Ids, search
from mtdistill.decoding.translator import DEFAULT_MAX_NEW_TOKENS, Translator
from mtdistill.errors import CheckpointError, MissingExtraError
from mtdistill.messages import tr

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

OnnxPrecision = Literal["float32", "int8"]
OnnxGraph = Literal["encoder_model", "decoder_model_merged"]

# The ends of file names that transformers.js knows: dtype "q8" asks for _quantized, "int8" for _int8. We write the first.
_SUFFIXES = {"float32": ("",), "int8": ("_quantized", "_int8")}
_MAX_BYTES = 8 * 2**30
_PAST, _PRESENT = "past_key_values.", "present."


def graph_path(folder: Path, graph: OnnxGraph, precision: OnnxPrecision) -> Path:
    """File of a graph in a model folder."""
    return folder / "onnx" / f"{graph}{_SUFFIXES[precision][0]}.onnx"


class OnnxTranslator(Translator):
    """Translates with ONNX Runtime on the CPU; made by `open`.

    The search is our own: ONNX Runtime only runs the two graphs. int8 activations share one scale per batch, so that
    what shares a batch with a line can change its translation; in float32 it cannot.
    """

    engine = "ONNX Runtime"

    def __init__(self, encoder: Any, decoder: Any, tokenizer: PreTrainedTokenizerFast, *, precision: OnnxPrecision,
                 start_id: int, source_lang: str, threads: int, max_new_tokens: int) -> None:  # fmt: skip
        super().__init__(tokenizer, source_lang, max_new_tokens)
        self._encoder, self._decoder, self._start_id, self._threads = encoder, decoder, start_id, threads
        self.precision = precision

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        source_lang: str,
        precision: OnnxPrecision | None = None,
        threads: int = 1,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    ) -> Self:
        """Load a folder as `mtdistill.export.onnx.convert_to_onnx` writes it.

        Args:
            folder: config.json, tokenizer files, and the graphs in ``onnx/``.
            source_lang: language the sources are normalised for.
            precision: which of the stored graphs; None: float32 if there, else int8.
            threads: CPU threads for one call.
            max_new_tokens: highest cap of an output, end mark included.

        Raises:
            MissingExtraError: ONNX Runtime is not installed.
            CheckpointError: the folder is incomplete, damaged, or holds other graphs.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(
                tr(
                    en="an ONNX model cannot be used: the package onnxruntime is not installed. "
                    "Install it: pip install 'mtdistill[onnx]'",
                    zh="无法使用 ONNX 模型：没有安装 onnxruntime。请安装：pip install 'mtdistill[onnx]'",
                )
            ) from error
        onnxruntime.disable_telemetry_events()
        onnxruntime.set_default_logger_severity(4)  # nothing: an error is raised as well, and told by us
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
        _bound_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        try:
            found, paths = _stored(folder, precision)
            tokenizer = load_tokenizer(folder)
            start_id = int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["decoder_start_token_id"])
            encoder, decoder = (
                onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]) for path in paths
            )
            _check(encoder, decoder, len(tokenizer))
            translator = cls(encoder, decoder, tokenizer, precision=found, start_id=start_id, source_lang=source_lang,
                             threads=threads, max_new_tokens=max_new_tokens)  # fmt: skip
            translator._generate(tokenizer(["a", "a b"])["input_ids"], 2, 3, 0)
        except Exception as error:  # ONNX Runtime, transformers and json raise their own for every kind of damage
            detail = _detail(error)
            raise CheckpointError(
                tr(
                    en=f"the ONNX model could not be loaded: got {folder} ({detail}), accepted a folder with config.json, "
                    "a tokenizer, onnx/encoder_model.onnx and onnx/decoder_model_merged.onnx. "
                    "Export it again: mtdistill export PATH --format onnx",
                    zh=f"无法加载 ONNX 模型：得到 {folder}（{detail}），需要含有 config.json、分词器、onnx/encoder_model.onnx 和 "
                    "onnx/decoder_model_merged.onnx 的文件夹。请重新导出：mtdistill export PATH --format onnx",
                )
            ) from error
        return translator

    @property
    def threads(self) -> int:
        """Threads one call uses."""
        return self._threads

    def _generate(
        self, source_ids: list[list[int]], beam_size: int, max_new_tokens: int, no_repeat_ngram_size: int
    ) -> list[list[int]]:
        padded = self._tokenizer.pad({"input_ids": source_ids}, return_tensors="np")
        mask = np.asarray(padded["attention_mask"], dtype=np.int64)
        inputs = {"input_ids": np.asarray(padded["input_ids"], dtype=np.int64), "attention_mask": mask}
        try:
            [states] = self._encoder.run(["last_hidden_state"], inputs)
            return search(
                _Decoding(self._decoder, states, mask), len(mask), start_id=self._start_id,
                end_id=self._tokenizer.eos_token_id, beam_size=beam_size, max_new_tokens=max_new_tokens,
                no_repeat_ngram_size=no_repeat_ngram_size,
            )  # fmt: skip
        except Exception as error:  # a graph is a program: it may stop at one sentence and not at another
            raise CheckpointError(
                tr(
                    en=f"the ONNX model stopped at a sentence: got {_detail(error)}, accepted graphs as mtdistill export "
                    "writes them. Export it again: mtdistill export PATH --format onnx",
                    zh=f"ONNX 模型在翻译时出错：{_detail(error)}，需要由 mtdistill export 写出的计算图。"
                    "请重新导出：mtdistill export PATH --format onnx",
                )
            ) from error


class _Decoding:
    """A batch on its way through the decoder: one row per hypothesis, and the keys and values of each so far.

    Args:
        session: of the decoder's graph.
        states: (sentences, source tokens, width) that the encoder gave.
        mask: (sentences, source tokens); 0: padding.
    """

    def __init__(self, session: Any, states: Floats, mask: Ids) -> None:
        self._session, self._states, self._mask = session, states, mask
        self._sentences = np.arange(len(mask))
        self._past: dict[str, Floats] = {
            given.name: np.zeros((len(mask), given.shape[1], 0, given.shape[3]), dtype=np.float32)
            for given in session.get_inputs()
            if given.name.startswith(_PAST)
        }

    def step(self, last_ids: Ids) -> Floats:
        """Append one token to every row; (rows, vocabulary) logits of the one after it."""
        # Of the source, only what is not yet in the past is projected to keys and values: all of it the first time.
        first = self._states.shape[1] > 0
        wanted = [name for name in self._past if first or not _is_cross(name)]
        logits, *present = self._session.run(
            ["logits", *(_PRESENT + name.removeprefix(_PAST) for name in wanted)],
            {
                "input_ids": last_ids[:, None],
                "encoder_hidden_states": self._states,
                "encoder_attention_mask": self._mask,
                **self._past,
            },
        )
        self._past.update(zip(wanted, present, strict=True))
        self._states = self._states[:, :0]
        return np.asarray(logits[:, -1])

    def keep(self, rows: Ids) -> None:
        """Go on with these rows in this order; a row may be there more than once, or not at all."""
        sentences = self._sentences[rows]
        same_sources = np.array_equal(sentences, self._sentences)
        for name, values in self._past.items():
            if not (same_sources and _is_cross(name)):
                self._past[name] = values[rows]
        if not same_sources:
            self._mask, self._states, self._sentences = self._mask[rows], self._states[rows], sentences


def _is_cross(name: str) -> bool:
    return ".encoder." in name


@cache
def _bound_memory() -> None:
    """Whatever sizes a graph claims or computes, all of this process's take no more than this; once for a process."""
    import onnxruntime

    onnxruntime.create_and_register_allocator(
        onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        ),
        onnxruntime.OrtArenaCfg(_MAX_BYTES, -1, -1, -1),
    )


def _detail(error: BaseException) -> str:
    error = error.__cause__ or error  # of an error of ours: what the library said
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _stored(folder: Path, precision: OnnxPrecision | None) -> tuple[OnnxPrecision, list[Path]]:
    """The precision to load, and its encoder and decoder."""
    for name in ("config.json", "tokenizer.json"):  # without the latter transformers makes up an empty tokenizer
        if not (folder / name).is_file():
            raise FileNotFoundError(tr(en=f"no {name}", zh=f"没有 {name}"))
    wanted: tuple[OnnxPrecision, ...] = ("float32", "int8") if precision is None else (precision,)
    for each in wanted:
        for suffix in _SUFFIXES[each]:
            paths = [folder / "onnx" / f"{graph}{suffix}.onnx" for graph in get_args(OnnxGraph)]
            if all(path.is_file() for path in paths):
                return each, paths
    raise FileNotFoundError(tr(en=f"no {' or '.join(wanted)} graphs", zh=f"没有 {' 或 '.join(wanted)} 计算图"))


def _check(encoder: Any, decoder: Any, pieces: int) -> None:
    """Whether these are graphs as we write them; those of others want other inputs."""
    inputs: Mapping[str, Any] = {given.name: given for given in decoder.get_inputs()}
    outputs: Mapping[str, Any] = {given.name: given for given in decoder.get_outputs()}
    past = {name for name in inputs if name.startswith(_PAST)}
    fitting = (
        {given.name for given in encoder.get_inputs()} == {"input_ids", "attention_mask"}
        and inputs.keys() - past == {"input_ids", "encoder_hidden_states", "encoder_attention_mask"}
        and outputs.keys() == {"logits", *(_PRESENT + name.removeprefix(_PAST) for name in past)}
        and any(map(_is_cross, past))
    )
    if not fitting:
        raise ValueError(
            tr(en=f"graphs of another kind: {', '.join(inputs)}", zh=f"其他类型的计算图：{', '.join(inputs)}")
        )
    if pieces > outputs["logits"].shape[-1]:
        rows = outputs["logits"].shape[-1]
        raise ValueError(tr(en=f"a tokenizer of {pieces} pieces, a model of {rows}",
                            zh=f"分词器有 {pieces} 个词元，模型只有 {rows} 个"))  # fmt: skip
