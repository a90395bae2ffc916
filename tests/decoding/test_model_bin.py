"""A model.bin is looked through before CTranslate2 reads it, which would crash or read beyond the end of a table."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from mtdistill.decoding import CTranslate2Translator, Quantization, convert_model_to_ctranslate2
from mtdistill.decoding.model_bin import require_t5
from mtdistill.errors import CheckpointError

Variable = tuple[str, tuple[int, ...], int, bytes]
Rewrite = Callable[..., Path]
HEAD = 4 + 2 + len("TransformerSpec") + 1 + 4  # version, name, revision


def read(content: bytes) -> tuple[dict[str, Variable], bytes]:
    """The variables, by name, and what stands behind them: an independent reading of the format."""
    place, found = HEAD + 4, {}
    for _ in range(struct.unpack_from("<I", content, HEAD)[0]):
        (length,) = struct.unpack_from("<H", content, place)
        name = content[place + 2 : place + 1 + length].decode()
        place += 2 + length
        shape = struct.unpack_from(f"<{content[place]}I", content, place + 1)
        place += 1 + 4 * len(shape)
        kind, size = struct.unpack_from("<BI", content, place)
        found[name] = (name, shape, kind, content[place + 5 : place + 5 + size])
        place += 5 + size
    return found, content[place:]


def written(head: bytes, variables: list[Variable], rest: bytes) -> bytes:
    content = head + struct.pack("<I", len(variables))
    for name, shape, kind, data in variables:
        content += struct.pack("<H", len(name) + 1) + name.encode() + b"\0"
        content += struct.pack(f"<B{len(shape)}IBI", len(shape), *shape, kind, len(data)) + data
    return content + rest


@pytest.fixture
def rewrite(ctranslate2_folder: Path, tmp_path: Path) -> Rewrite:
    """A copy of the tiny teacher's model.bin in which one variable was replaced, and everything around it fits."""

    def write(name: str, shape: tuple[int, ...] | None = None, kind: int | None = None, data: bytes | None = None,
              new_name: str | None = None) -> Path:  # fmt: skip
        content = (ctranslate2_folder / "model.bin").read_bytes()
        variables, rest = read(content)
        old = variables[name]
        new = (new_name or name, old[1] if shape is None else shape, old[2] if kind is None else kind, data or old[3])
        path = tmp_path / "model.bin"
        path.write_bytes(written(content[:HEAD], [new if each is old else each for each in variables.values()], rest))
        return path

    return write


def shape_of(folder: Path, name: str) -> tuple[int, ...]:
    return read((folder / "model.bin").read_bytes())[0][name][1]


@pytest.mark.parametrize("quantization", ["float32", "int8", "float16"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, {"num_decoder_layers": 3, "d_kv": 5}],
    ids=["as ours", "as T5 1.1", "deeper decoder"],
)
def test_every_t5_is_accepted(
    quantization: Quantization, settings: dict[str, Any], tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = T5Config(vocab_size=408, **{"d_model": 16, "d_kv": 8, "num_heads": 3, "d_ff": 24, "num_layers": 2,
                                         "decoder_start_token_id": 0, **settings})  # fmt: skip
    convert_model_to_ctranslate2(T5ForConditionalGeneration(config), tiny_tokenizer, tmp_path, quantization)
    assert require_t5(tmp_path / "model.bin") == (408, 408)
    CTranslate2Translator.open(tmp_path, source_lang="zh")


def test_a_copy_by_this_test_is_the_same(rewrite: Rewrite, ctranslate2_folder: Path) -> None:
    assert rewrite("decoder/num_heads").read_bytes() == (ctranslate2_folder / "model.bin").read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_file_cut_short(share: float, ctranslate2_folder: Path, tmp_path: Path) -> None:
    content = (ctranslate2_folder / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"cut short|/"):
        require_t5(tmp_path / "model.bin")


def test_a_file_with_more_behind_it(ctranslate2_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes((ctranslate2_folder / "model.bin").read_bytes() + b"\0")
    with pytest.raises(ValueError, match="more bytes"):
        require_t5(tmp_path / "model.bin")


def test_another_version_of_the_format(ctranslate2_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\7" + (ctranslate2_folder / "model.bin").read_bytes()[1:])
    with pytest.raises(ValueError, match="version 7"):
        require_t5(tmp_path / "model.bin")


@pytest.mark.parametrize(
    "name",
    [
        "decoder/embeddings/weight", "decoder/layer_0/attention/linear_1/weight", "encoder/layer_1/ffn/linear_0/weight",
        "encoder/layer_0/self_attention/linear_0/weight", "encoder/layer_0/self_attention/relative_attention_bias",
    ],
)  # fmt: skip
def test_a_weight_of_another_shape_is_named(name: str, rewrite: Rewrite, ctranslate2_folder: Path) -> None:
    rows, columns = shape_of(ctranslate2_folder, name)
    # Twice as wide: what does not fit is then this weight, or the first of those that are compared with it.
    for shape in ((rows * 2, columns // 2), (rows // 2, columns * 2)):
        with pytest.raises(ValueError, match=r"weight|relative_attention_bias|num_heads|gamma|sizes"):
            require_t5(rewrite(name, shape))
    with pytest.raises(ValueError, match=name):  # of as many values, and not a matrix
        require_t5(rewrite(name, (rows * columns,)))


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("encoder/num_heads", 2, 0),  # a division by zero
        ("encoder/num_heads", 2, -2),
        ("decoder/num_heads", 2, 1),
        ("decoder/num_heads", 4, 2),  # as float16: 0 heads
        ("decoder/alignment_layer", 2, 1),  # a layer that is not there
        ("decoder/alignment_layer", 3, 0xFFFF),
        ("encoder/multi_query_attention", 1, 1),  # other shapes
        ("decoder/alibi", 1, 1),
        ("decoder/pre_norm", 1, 0),
        ("encoder/layer_0/self_attention/relative_attention_max_distance", 3, 0),  # the logarithm of 0
        ("encoder/layer_0/self_attention/relative_attention_max_distance", 3, 16),
    ],
)
def test_a_setting_that_is_no_t5s_is_named(name: str, kind: int, value: int, rewrite: Rewrite) -> None:
    data = struct.pack({1: "<b", 2: "<h", 3: "<i", 4: "<h"}[kind], value)
    with pytest.raises(ValueError, match=name):
        require_t5(rewrite(name, kind=kind, data=data))


def test_a_variable_that_no_t5_has(rewrite: Rewrite) -> None:
    with pytest.raises(ValueError, match="encoder/layer_0/rotary"):
        require_t5(rewrite("encoder/layer_0/ffn/linear_0/weight", new_name="encoder/layer_0/rotary"))


def test_a_variable_that_stands_there_twice(rewrite: Rewrite) -> None:
    with pytest.raises(ValueError, match="decoder/alignment_layer"):
        require_t5(rewrite("decoder/alignment_heads", new_name="decoder/alignment_layer"))


def test_an_8_bit_weight_without_its_scale(rewrite: Rewrite, ctranslate2_folder: Path) -> None:
    name = "encoder/layer_0/ffn/linear_0/weight"
    rows, columns = shape_of(ctranslate2_folder, name)
    with pytest.raises(ValueError, match=name):
        require_t5(rewrite(name, kind=1, data=b"\1" * rows * columns))


def test_the_translator_refuses_before_the_library_sees_the_file(
    rewrite: Rewrite, ctranslate2_folder: Path, tmp_path: Path
) -> None:
    for file in ctranslate2_folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    rewrite("encoder/num_heads", data=struct.pack("<h", 0))
    with pytest.raises(CheckpointError, match=r"could not be loaded: got .*encoder/num_heads.*Export it again"):
        CTranslate2Translator.open(tmp_path, source_lang="zh")


@pytest.mark.parametrize("pieces", ["fewer", "more", "others"])
def test_a_vocabulary_that_is_not_the_tokenizers(pieces: str, ctranslate2_folder: Path, tmp_path: Path) -> None:
    import json

    for file in ctranslate2_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    vocabulary = json.loads((tmp_path / "shared_vocabulary.json").read_text(encoding="utf-8"))
    changed = {"fewer": vocabulary[:-1], "more": [*vocabulary, "x"], "others": ["x", *vocabulary[1:]]}[pieces]
    (tmp_path / "shared_vocabulary.json").write_text(json.dumps(changed), encoding="utf-8")
    sizes = r"\d+ pieces of the source, \d+ of the target, 400 in the tokenizer, 400 and 400 rows"
    with pytest.raises(CheckpointError, match=f"another vocabulary: {sizes}"):
        CTranslate2Translator.open(tmp_path, source_lang="zh")
