"""Writing a model as two ONNX graphs, as transformers.js reads them in a browser and ONNX Runtime anywhere.

Imported by distillation and export.exporting; imports decoding and export.onnx_graphs.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import GenerationConfig

from mtdistill.decoding import DEFAULT_MAX_NEW_TOKENS
from mtdistill.decoding.onnx import OnnxPrecision, graph_path
from mtdistill.errors import MissingExtraError
from mtdistill.export.onnx_graphs import matrix_names, traced_graphs
from mtdistill.files import write_atomically
from mtdistill.messages import tr

if TYPE_CHECKING:
    from onnx import ModelProto
    from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration


def convert_to_onnx(
    model: T5ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    precision: OnnxPrecision = "float32",
    *,
    kept_in_float: Collection[str] = (),
) -> None:
    """Write a model as ONNX graphs, with configuration and tokenizer beside them.

    Args:
        model: any T5; left as it is.
        tokenizer: the model's.
        folder: made if missing; files of the same names are replaced. Both precisions can share one.
        precision: of the stored weights. int8: every matrix, one scale per output; activations are rounded as they
            come. Norms and position offsets stay float32.
        kept_in_float: matrices that int8 leaves alone, by their names in the model, where ``*`` stands for anything:
            "lm_head", "decoder.block.3.*", "*.DenseReluDense.wo", "*.embed_tokens".

    Raises:
        MissingExtraError: the package onnx or onnxruntime is not installed.
        ValueError: a name in `kept_in_float` fits no matrix.
    """
    _require_packages()
    traced = copy.deepcopy(model).cpu().float().eval()
    names = matrix_names(traced)
    rounded = names - _matching(kept_in_float, names) if precision == "int8" else set()
    graphs = traced_graphs(traced, rounded)
    if rounded:
        graphs = {name: _with_8_bit_products(graph, rounded) for name, graph in graphs.items()}
    for name, graph in graphs.items():
        write_atomically(graph_path(folder, name, precision), graph.SerializeToString())
    config = copy.deepcopy(model.config)
    config.dtype, config.use_cache = "float32", True
    config.save_pretrained(str(folder))
    # Without a limit here transformers.js cuts every output at 20 tokens.
    GenerationConfig(
        max_new_tokens=DEFAULT_MAX_NEW_TOKENS,
        decoder_start_token_id=config.decoder_start_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    ).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def _matching(patterns: Collection[str], names: Collection[str]) -> set[str]:
    unknown = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
    if unknown:
        raise ValueError(f"kept_in_float: got {unknown}, accepted names of matrices such as {sorted(names)[:3]}")
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}


def _with_8_bit_products(graph: ModelProto, rounded: Collection[str]) -> ModelProto:
    """The graph with the matrices of these names in 8 bits, one scale per output."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    names = {f"{name}.weight" for name in rounded}
    nodes = [node.name for node in graph.graph.node if node.op_type == "MatMul" and names.intersection(node.input)]
    if not nodes:  # which the quantiser would take for all of them
        return graph
    with tempfile.TemporaryDirectory() as scratch, _quiet_root_logger():
        file = Path(scratch) / "graph.onnx"
        quantize_dynamic(
            graph,
            file,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=nodes,
            per_channel=True,
            weight_type=QuantType.QInt8,
            # Only 7 of the bits: processors without VNNI add two products in 16 bits, and with 8 those overflow.
            reduce_range=True,
        )
        return onnx.load_model_from_string(file.read_bytes())


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """The quantiser recommends on the root logger, which then also gets a handler, to prepare what needs none."""
    handler, disabled = logging.NullHandler(), logging.root.manager.disable
    logging.root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        logging.root.removeHandler(handler)


def _require_packages() -> None:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            tr(
                en=f"an ONNX model cannot be written: the package {error.name} is not installed. "
                "Install it: pip install 'mtdistill[onnx]'",
                zh=f"无法写出 ONNX 模型：没有安装 {error.name}。请安装：pip install 'mtdistill[onnx]'",
            )
        ) from error
    onnxruntime.disable_telemetry_events()
    del onnx
