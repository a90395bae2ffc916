import builtins
import copy
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from mtdistill.decoding import HuggingFaceTranslator, OnnxTranslator
from mtdistill.errors import MissingExtraError
from mtdistill.export.onnx import convert_to_onnx
from mtdistill.modeling import t5_config

LAYERS, HEADS, HEAD_WIDTH = 2, 2, 8  # of the tiny teacher's decoder
GRAPHS = ("encoder_model", "decoder_model_merged")


@pytest.fixture(scope="module")
def folder(
    trained_tiny_teacher: T5ForConditionalGeneration,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny teacher in both precisions."""
    exported = tmp_path_factory.mktemp("onnx")
    convert_to_onnx(trained_tiny_teacher, tiny_tokenizer, exported)
    convert_to_onnx(trained_tiny_teacher, tiny_tokenizer, exported, "int8")
    return exported


def graph(folder: Path, name: str) -> Any:
    return onnx.load(folder / "onnx" / f"{name}.onnx").graph


def axes(value: Any) -> list[Any]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def session(folder: Path, name: str) -> Any:
    return onnxruntime.InferenceSession(folder / "onnx" / f"{name}.onnx", providers=["CPUExecutionProvider"])


def run_both(folder: Path, ids: Any, mask: Any, decoder_ids: Any, split: int) -> Any:
    """Logits of the exported graphs; the first `split` tokens in one step, the others in a second."""
    encoder, decoder = (session(folder, name) for name in GRAPHS)
    [states] = encoder.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    past = {
        given.name: np.zeros((len(ids), given.shape[1], 0, given.shape[3]), dtype=np.float32)
        for given in decoder.get_inputs()
        if given.name.startswith("past")
    }
    logits = []
    for part in (decoder_ids[:, :split], decoder_ids[:, split:]):
        named = {"input_ids": part.numpy(), "encoder_hidden_states": states, "encoder_attention_mask": mask.numpy()}
        outputs = zip((o.name for o in decoder.get_outputs()), decoder.run(None, named | past), strict=True)
        for name, value in outputs:
            if name == "logits":
                logits.append(value)
            else:
                past[name.replace("present", "past_key_values")] = value
    return np.concatenate(logits, axis=1)


class TestLayout:
    def test_is_what_transformers_js_looks_for(self, folder: Path) -> None:
        files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
        assert files == {
            "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
            *(f"onnx/{name}{suffix}.onnx" for name in GRAPHS for suffix in ("", "_quantized")),
        }  # fmt: skip

    def test_of_the_encoder(self, folder: Path) -> None:
        for suffix in ("", "_quantized"):
            encoder = graph(folder, f"encoder_model{suffix}")
            assert {value.name: axes(value) for value in encoder.input} == {
                "input_ids": ["batch_size", "encoder_sequence_length"],
                "attention_mask": ["batch_size", "encoder_sequence_length"],
            }
            [output] = encoder.output
            assert (output.name, axes(output)) == ("last_hidden_state", ["batch_size", "encoder_sequence_length", 16])

    def test_of_the_decoder(self, folder: Path) -> None:
        parts = [f"{i}.{stack}.{part}" for i in range(LAYERS) for stack in ("decoder", "encoder")
                 for part in ("key", "value")]  # fmt: skip
        for suffix in ("", "_quantized"):
            decoder = graph(folder, f"decoder_model_merged{suffix}")
            inputs = {value.name: axes(value) for value in decoder.input}
            outputs = {value.name: axes(value) for value in decoder.output}
            assert set(inputs) == {"input_ids", "encoder_hidden_states", "encoder_attention_mask",
                                   *(f"past_key_values.{part}" for part in parts)}  # fmt: skip
            assert set(outputs) == {"logits", *(f"present.{part}" for part in parts)}
            # transformers.js makes the first past: "batch_size" and numbers as they are, all other names 0.
            for name, shape in inputs.items():
                if name.startswith("past"):
                    resolved = [{"batch_size": 5}.get(axis, 0) if isinstance(axis, str) else axis for axis in shape]
                    assert resolved == [5, HEADS, 0, HEAD_WIDTH]
            assert outputs["logits"] == ["batch_size", "decoder_sequence_length", 400]

    def test_the_configuration_is_that_of_the_model(self, folder: Path, tiny_teacher: Any) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert (config["model_type"], config["d_model"], config["num_decoder_layers"]) == ("t5", 16, LAYERS)
        generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
        assert {name: value for name, value in generation.items() if name.endswith(("_id", "_tokens"))} == {
            "max_new_tokens": 256, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
        }  # fmt: skip

    def test_holds_no_path_of_this_machine(self, folder: Path) -> None:
        libraries, repository = Path(onnx.__file__).parents[1], Path(__file__).parents[2]
        places = [str(place).encode() for place in (folder, tempfile.gettempdir(), libraries, repository)]
        for file in folder.rglob("*.*"):
            content = file.read_bytes()
            assert [place for place in places if place in content] == [], file.name
            if file.suffix == ".onnx":
                assert not any(node.doc_string for node in onnx.load(file).graph.node)


class TestFloat32:
    def test_gives_the_logits_of_the_model_in_one_step_and_in_two(self, folder: Path, tiny_teacher: Any) -> None:
        model, tokenizer = tiny_teacher
        batch = tokenizer(["他喜欢猫。", "我妈妈忘了书。", "q" * 50], return_tensors="pt", padding=True)
        decoder_ids = torch.cat([torch.zeros(3, 1, dtype=torch.long), batch["input_ids"][:, :45]], dim=1)
        with torch.no_grad():
            expected = model(**batch, decoder_input_ids=decoder_ids).logits.numpy()
        for split in (46, 1, 30):
            logits = run_both(folder, batch["input_ids"], batch["attention_mask"], decoder_ids, split)
            np.testing.assert_allclose(logits, expected, atol=2e-4, rtol=1e-4)

    def test_translates_the_same(self, folder: Path, tiny_teacher: Any, tiny_corpus: Any) -> None:
        sources = [source for source, _ in tiny_corpus] + ["hello", "猫猫猫", "他他狗", "Tom likes", "。"]
        expected = HuggingFaceTranslator(*tiny_teacher, source_lang="zh").translate(sources)
        assert OnnxTranslator.open(folder, source_lang="zh").translate(sources) == expected

    @pytest.mark.parametrize(
        "changes",
        [
            {"feed_forward_proj": "gated-gelu", "scale_decoder_outputs": False},
            {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 11},
            {"relative_attention_max_distance": 128, "layer_norm_epsilon": 0.1},
            {"d_kv": 5, "num_heads": 3, "num_layers": 1, "num_decoder_layers": 3},
        ],
        ids=lambda changes: "-".join(changes),
    )
    def test_covers_every_t5(self, changes: dict[str, Any], tiny_tokenizer: Any, tmp_path: Path) -> None:
        torch.manual_seed(2)
        config = t5_config(400, encoder_layers=2, decoder_layers=2, width=14, heads=2, head_width=7,
                           feed_forward_width=22)  # fmt: skip
        model = T5ForConditionalGeneration(T5Config(**{**config.to_dict(), **changes})).eval()
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.data.uniform_(0.5, 2.0)
            elif "relative_attention_bias" in name:
                parameter.data.normal_()
        convert_to_onnx(model, tiny_tokenizer, tmp_path)
        ids = torch.randint(2, 400, (3, 40))
        mask = (torch.arange(40) < torch.tensor([[40], [7], [23]])).long()
        decoder_ids = torch.randint(2, 400, (3, 150))
        with torch.no_grad():
            expected = model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids).logits.numpy()
        logits = run_both(tmp_path, ids, mask, decoder_ids, 20)
        assert expected.std() > 0.1
        np.testing.assert_allclose(logits, expected, atol=2e-4, rtol=1e-4)


class TestInt8:
    def test_agrees_mostly(self, folder: Path, tiny_corpus: Any) -> None:
        sources = [source for source, _ in tiny_corpus]
        outputs = OnnxTranslator.open(folder, source_lang="zh", precision="int8").translate(sources)
        assert sum(output.text == target for output, (_, target) in zip(outputs, tiny_corpus, strict=True)) > 180

    def test_rounds_every_matrix_and_nothing_else(self, folder: Path) -> None:
        for name, matrices in (("encoder_model_quantized", 2 * 6 + 1), ("decoder_model_merged_quantized", 2 * 10 + 2)):
            weights = graph(folder, name).initializer
            rounded = [w for w in weights if w.data_type == TensorProto.INT8 and len(w.dims) == 2]
            assert len(rounded) == matrices
            for weight in rounded:
                values = np.abs(onnx.numpy_helper.to_array(weight).astype(int))
                # 7 bits in what is multiplied: the products of two inputs then never leave 16 bits.
                assert values.max() == 127 if weight.name.endswith("embed_tokens.weight") else 60 < values.max() <= 64
            [offsets] = [w for w in weights if w.name == "positions.offsets"]
            assert offsets.data_type == TensorProto.FLOAT
            left = [w.name for w in weights if w.data_type == TensorProto.FLOAT and len(w.dims) == 2]
            assert set(left) == {"positions.offsets", f"{name.split('_')[0]}.embed_tokens.scales"}

    def test_every_output_has_its_own_scale(self, folder: Path) -> None:
        sizes = {w.name: list(w.dims) for w in graph(folder, "decoder_model_merged_quantized").initializer}
        assert sizes["lm_head.weight_scale"] == [400]
        assert sizes["decoder.block.1.layer.2.DenseReluDense.wi.weight_scale"] == [32]
        assert sizes["decoder.embed_tokens.scales"] == [400, 1]

    @pytest.mark.parametrize(
        ("patterns", "kept"),
        [
            (["lm_head"], {"lm_head"}),
            (["*.embed_tokens"], {"encoder.embed_tokens", "decoder.embed_tokens"}),
            (
                ["encoder.block.1.layer.1.*", "decoder.block.0.layer.1.EncDecAttention.[qk]"],
                {
                    "encoder.block.1.layer.1.DenseReluDense.wi", "encoder.block.1.layer.1.DenseReluDense.wo",
                    "decoder.block.0.layer.1.EncDecAttention.q", "decoder.block.0.layer.1.EncDecAttention.k",
                },
            ),
            (["encoder.*"], None),
        ],
    )  # fmt: skip
    def test_leaves_the_named_matrices_in_float(
        self, patterns: list[str], kept: set[str] | None, folder: Path, tiny_teacher: Any, tmp_path: Path
    ) -> None:
        convert_to_onnx(*tiny_teacher, tmp_path, "int8", kept_in_float=patterns)
        left, every = set(), set()
        for name in GRAPHS:
            whole = {w.name: w for w in graph(folder, name).initializer if len(w.dims) == 2}
            every |= {weight.removesuffix(".weight") for weight in whole if weight.endswith(".weight")}
            for weight in graph(tmp_path, f"{name}_quantized").initializer:
                if weight.name in whole and weight.data_type == TensorProto.FLOAT and weight.name.endswith(".weight"):
                    assert (onnx.numpy_helper.to_array(weight) == onnx.numpy_helper.to_array(whole[weight.name])).all()
                    left.add(weight.name.removesuffix(".weight"))
        assert left == ({name for name in every if name.startswith("encoder.")} if kept is None else kept)
        assert OnnxTranslator.open(tmp_path, source_lang="zh").translate(["他喜欢猫。"])[0].text == "he likes the cat."

    def test_refuses_to_keep_what_is_not_there(self, tiny_teacher: Any, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"got \['lm_haed'\], accepted names of matrices such as"):
            convert_to_onnx(*tiny_teacher, tmp_path, "int8", kept_in_float=["lm_haed", "encoder.*"])
        assert list(tmp_path.iterdir()) == []


class TestExporting:
    def test_leaves_the_model_as_it_is(self, tiny_teacher: Any, tmp_path: Path) -> None:
        model, tokenizer = tiny_teacher
        model.train()
        model.config.use_cache = False  # as the Trainer leaves it
        weights, config = copy.deepcopy(model.state_dict()), model.config.to_dict()
        modules = [(name, type(module)) for name, module in model.named_modules()]
        convert_to_onnx(model, tokenizer, tmp_path, "int8")
        assert model.training
        assert model.lm_head.weight is model.shared.weight
        assert [(name, type(module)) for name, module in model.named_modules()] == modules
        assert model.config.to_dict() == config
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
        assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["use_cache"] is True

    def test_is_quiet(
        self,
        tiny_teacher: Any,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
        recwarn: pytest.WarningsRecorder,
    ) -> None:
        handlers = list(logging.root.handlers)
        capfd.readouterr()
        convert_to_onnx(*tiny_teacher, tmp_path, "int8")
        assert capfd.readouterr() == ("", "")
        assert caplog.messages == [str(warning.message) for warning in recwarn] == []
        assert (logging.root.handlers, logging.root.manager.disable) == (handlers, logging.NOTSET)

    @pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
    def test_without_its_packages_says_what_to_install(
        self, package: str, tiny_teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        imported: Callable[..., Any] = builtins.__import__

        def without(name: str, *details: Any, **more: Any) -> Any:
            if name == package:
                raise ModuleNotFoundError(name=name)
            return imported(name, *details, **more)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(MissingExtraError, match=rf"{package} is not installed.*pip install 'mtdistill\[onnx\]'"):
            convert_to_onnx(*tiny_teacher, tmp_path)
        assert list(tmp_path.iterdir()) == []
