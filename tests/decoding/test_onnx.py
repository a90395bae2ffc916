import builtins
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mtdistill.decoding import OnnxTranslator, Translation, Translator
from mtdistill.errors import CheckpointError, MissingExtraError

Build = Callable[..., Translator]


@pytest.fixture
def folder(onnx_folder: Path, tmp_path: Path) -> Path:
    """A copy to do damage to."""
    return Path(shutil.copytree(onnx_folder, tmp_path / "model"))


class TestOpening:
    def test_names_its_conditions(self, build: Build) -> None:
        translator = build("ONNX Runtime", threads=2, precision="int8")
        assert (translator.engine, translator.precision, translator.threads) == ("ONNX Runtime", "int8", 2)
        options = translator._decoder.get_session_options()  # type: ignore[attr-defined]
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)

    def test_takes_float32_where_both_are(self, folder: Path) -> None:
        assert OnnxTranslator.open(folder, source_lang="zh").precision == "float32"
        (folder / "onnx" / "decoder_model_merged.onnx").unlink()  # half of a model is none
        assert OnnxTranslator.open(folder, source_lang="zh").precision == "int8"

    def test_finds_int8_under_both_names(self, folder: Path, learnt: dict[str, Translation]) -> None:
        for file in (folder / "onnx").glob("*_quantized.onnx"):
            file.rename(file.with_name(file.name.replace("_quantized", "_int8")))
        outputs = OnnxTranslator.open(folder, source_lang="zh", precision="int8").translate(list(learnt))
        assert sum(a == b for a, b in zip(outputs, learnt.values(), strict=True)) > 150

    @pytest.mark.parametrize(
        ("file", "detail"),
        [
            ("config.json", "no config.json"),
            ("tokenizer.json", "no tokenizer.json"),
            ("onnx/encoder_model.onnx", "no float32 graphs"),
            ("onnx/decoder_model_merged.onnx", "no float32 graphs"),
        ],
    )
    def test_refuses_what_is_incomplete(self, file: str, detail: str, folder: Path) -> None:
        (folder / file).unlink()
        with pytest.raises(CheckpointError, match=rf"got .*\({detail}\), accepted a folder with config\.json"):
            OnnxTranslator.open(folder, source_lang="zh", precision="float32")

    @pytest.mark.parametrize(
        "file", ["config.json", "tokenizer.json", "onnx/encoder_model.onnx", "onnx/decoder_model_merged.onnx"]
    )
    def test_refuses_what_is_damaged(self, file: str, folder: Path) -> None:
        whole = (folder / file).read_bytes()
        (folder / file).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match="could not be loaded: got"):
            OnnxTranslator.open(folder, source_lang="zh")

    def test_refuses_graphs_of_another_kind(self, folder: Path) -> None:
        shutil.copy(folder / "onnx" / "encoder_model.onnx", folder / "onnx" / "decoder_model_merged.onnx")
        with pytest.raises(CheckpointError, match="graphs of another kind: input_ids, attention_mask"):
            OnnxTranslator.open(folder, source_lang="zh")

    def test_refuses_a_tokenizer_with_more_pieces_than_the_model(self, folder: Path, tiny_tokenizer: Any) -> None:
        longer = type(tiny_tokenizer).from_pretrained(folder)
        longer.add_tokens(["<new>"])
        longer.save_pretrained(folder)
        with pytest.raises(CheckpointError, match="a tokenizer of 401 pieces, a model of 400"):
            OnnxTranslator.open(folder, source_lang="zh")

    def test_without_onnx_runtime_says_what_to_install(
        self, onnx_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        imported = builtins.__import__

        def without(name: str, *details: Any, **more: Any) -> Any:
            if name == "onnxruntime":
                raise ModuleNotFoundError(name=name)
            return imported(name, *details, **more)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(MissingExtraError, match=r"onnxruntime is not installed.*pip install 'mtdistill\[onnx\]'"):
            OnnxTranslator.open(onnx_folder, source_lang="zh")


def test_int8_says_nearly_the_same(build: Build, learnt: dict[str, Translation]) -> None:
    for beam_size in (1, 4):
        whole, rounded = (
            build("ONNX Runtime", precision=precision).translate(list(learnt), beam_size=beam_size)
            for precision in ("float32", "int8")
        )
        assert sum(a == b for a, b in zip(whole, rounded, strict=True)) > 150


class Watched:
    """A decoder that remembers of each step the new source tokens, and whether their keys were asked for."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.steps: list[tuple[int, bool]] = []

    def get_inputs(self) -> Any:
        return self.session.get_inputs()

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> Any:
        self.steps.append((inputs["encoder_hidden_states"].shape[1], "present.0.encoder.key" in outputs))
        return self.session.run(outputs, inputs)


def test_the_source_is_projected_once(build: Build, learnt: dict[str, Translation]) -> None:
    translator: Any = build("ONNX Runtime")
    translator._decoder = Watched(translator._decoder)
    source, expected = next(iter(learnt.items()))
    assert translator.translate([source]) == [expected]
    first, *later = translator._decoder.steps
    assert first[0] > 0
    assert first[1]
    assert later == [(0, False)] * (expected.tokens - 1)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_no_step_is_made_beyond_the_cap(beam_size: int, build: Build, learnt: dict[str, Translation]) -> None:
    translator: Any = build("ONNX Runtime", max_new_tokens=4)
    translator._decoder = Watched(translator._decoder)
    translator.translate([next(iter(learnt))], beam_size=beam_size, second_try=False)
    assert len(translator._decoder.steps) == 4


def test_is_quiet_and_translates_without_torch(onnx_folder: Path) -> None:
    # Messages of ONNX Runtime's own are written at its first use: a process of its own shows them.
    code = (
        "import sys; from pathlib import Path; from mtdistill.decoding.onnx import OnnxTranslator\n"
        f"translator = OnnxTranslator.open(Path({str(onnx_folder)!r}), source_lang='zh')\n"
        "sys.modules['torch'] = None  # from here on importing it fails\n"
        "print(translator.translate(['他喜欢猫。'])[0].text)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "he likes the cat.\n", "")


class TestGraphsOfStrangers:
    """A graph is a program."""

    @staticmethod
    def change(folder: Path, graph: str, change: Callable[[Any], None]) -> None:
        path = folder / "onnx" / f"{graph}.onnx"
        model = onnx.load(path)
        change(model.graph)
        onnx.save(model, path)

    def test_one_that_does_not_run_is_refused_when_it_is_opened(self, folder: Path) -> None:
        def turn(graph: Any) -> None:
            node = next(node for node in graph.node if node.op_type == "Transpose")
            del node.attribute[0].ints[:]
            node.attribute[0].ints.extend([3, 2, 1, 0])

        self.change(folder, "decoder_model_merged", turn)
        with pytest.raises(CheckpointError, match=r"could not be loaded: got .*Export it again"):
            OnnxTranslator.open(folder, source_lang="zh")

    def test_one_that_stops_at_a_sentence(self, folder: Path) -> None:
        translator: Any = OnnxTranslator.open(folder, source_lang="zh")
        translator._encoder.run = None
        with pytest.raises(CheckpointError, match="stopped at a sentence: got 'NoneType' object"):
            translator.translate(["他喜欢猫。"])

    def test_one_that_wants_much_memory(self, folder: Path) -> None:
        def grow(graph: Any) -> None:
            end = onnx.numpy_helper.from_array(np.array(2 * 10**9, dtype=np.int64), "much")
            zero = onnx.numpy_helper.from_array(np.array(0, dtype=np.int64), "zero")
            one = onnx.numpy_helper.from_array(np.array(1, dtype=np.int64), "one")
            graph.initializer.extend([end, zero, one])
            numbers = onnx.helper.make_node("Range", ["zero", "much", "one"], ["numbers"])
            total = onnx.helper.make_node("ReduceSum", ["numbers"], ["total"], keepdims=0)
            as_float = onnx.helper.make_node("Cast", ["total"], ["total_float"], to=1)
            output = graph.output[0].name
            renamed = next(node for node in graph.node if output in node.output)
            renamed.output[list(renamed.output).index(output)] = "states before"
            last = onnx.helper.make_node("Add", ["states before", "total_float"], [output])
            graph.node.extend([numbers, total, as_float, last])

        self.change(folder, "encoder_model", grow)  # 16 GB
        with pytest.raises(CheckpointError, match="Available memory"):
            OnnxTranslator.open(folder, source_lang="zh")
