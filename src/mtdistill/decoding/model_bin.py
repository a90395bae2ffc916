"""What stands in a CTranslate2 `model.bin`, looked through before CTranslate2 reads it.

CTranslate2 trusts the file: sizes that do not fit each other end the process (a division by zero, a bus error) or are
read beyond the end of a table. So every weight must have the shape it has in a T5, in bytes that are there. Imported by
decoding.conversion and decoding.ctranslate2.
"""

import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_VERSION = 6  # of the binary format
_ITEM_BYTES = {
    0: 4,
    1: 1,
    2: 2,
    3: 4,
    4: 2,
    5: 2,
}  # by number of a type: float32, int8, int16, int32, float16, bfloat16
_FLOAT32, _INT8, _FLOATS = 0, 1, (0, 4, 5)
_SETTING_BYTES = 8
_MAX_NAME_BYTES = 1000
# The shape of every weight of a T5, in letters: (v)ocabulary of the source, (t)arget vocabulary, (d) width, (h)eads
# together, (f)eed-forward, (b)uckets, (n)umber of heads.
_SHAPES = [
    (re.compile(pattern), shape)
    for pattern, shape in (
        (r"encoder/embeddings_0/weight", ("v", "d")),
        (r"decoder/(embeddings|projection)/weight", ("t", "d")),
        (r"(en|de)coder/(layer_\d+/(self_attention|attention|ffn)/)?layer_norm/gamma", ("d",)),
        (r"(en|de)coder/layer_\d+/self_attention/linear_0/weight", ("3h", "d")),
        (r"(en|de)coder/layer_\d+/self_attention/linear_1/weight", ("d", "h")),
        (r"decoder/layer_\d+/attention/linear_0/weight", ("h", "d")),
        (r"decoder/layer_\d+/attention/linear_1/weight", ("2h", "d")),
        (r"decoder/layer_\d+/attention/linear_2/weight", ("d", "h")),
        (r"(en|de)coder/layer_\d+/ffn/linear_0(_noact)?/weight", ("f", "d")),
        (r"(en|de)coder/layer_\d+/ffn/linear_1/weight", ("d", "f")),
        (r"(en|de)coder/layer_\d+/self_attention/relative_attention_bias", ("b", "n")),
    )
]
# Settings that say something about a T5, and their value where it is always the same. All others are ways of other
# models, and have to be off.
_SCALE = re.compile(r".*/(queries_scale|scale_outputs)")  # float32
_FREE = re.compile(r".*/(activation|num_heads|queries_scale|relative_attention_max_distance|scale_outputs)")
_FIXED = {"encoder/pre_norm": 1, "decoder/pre_norm": 1, "decoder/alignment_heads": 1, "decoder/alignment_layer": -1}


def require_t5(path: Path) -> tuple[int, int]:
    """Check a file as far as CTranslate2 relies on it.

    Returns:
        Sizes of the vocabularies of source and target.

    Raises:
        ValueError: no such file, cut short, or weights that make no T5; the message names the first of them.
        OSError: it cannot be read.
    """
    sizes: dict[str, int] = {}
    settings: dict[str, int] = {}
    weights: dict[str, tuple[tuple[int, ...], int]] = {}
    with path.open("rb") as stream:
        for name, shape, kind, data in _variables(stream, path.stat().st_size):
            if name in weights or name in settings:
                raise ValueError(name)
            if shape:
                weights[name] = shape, kind
            else:
                settings[name] = int.from_bytes(data, "little", signed=True)
                if kind in _FLOATS and settings[name] and not _SCALE.fullmatch(name):
                    raise ValueError(name)
        aliases = dict(_aliases(stream))
        if stream.read(1):
            raise ValueError("more bytes than weights")
    for name, (shape, kind) in weights.items():
        if name.endswith("/weight_scale"):
            rows, of = weights.get(name.removesuffix("_scale"), ((), _INT8))
            if rows[:1] != shape or (of, kind) != (_INT8, _FLOAT32):
                raise ValueError(name)
            continue
        _fit(name, shape, sizes)
        if kind not in _FLOATS and (kind != _INT8 or f"{name}_scale" not in weights):
            raise ValueError(name)
    for alias, name in aliases.items():
        if name in weights:
            _fit(alias, weights[name][0], sizes)
        elif name in settings:
            settings[alias] = settings[name]
    _require_settings(settings, sizes)
    return sizes["v"], sizes["t"]


def _variables(stream: BinaryIO, size: int) -> Iterator[tuple[str, tuple[int, ...], int, bytes]]:
    """Name, shape, type and, of a single value, its bytes; the others are passed over."""
    version, _, _, count = _number(stream, "I"), _text(stream), _number(stream, "I"), _number(stream, "I")
    if version != _VERSION:
        raise ValueError(f"version {version}")
    for _ in range(count):
        name = _text(stream)
        shape = tuple(_number(stream, "I") for _ in range(_number(stream, "B")))
        kind, length = _number(stream, "B"), _number(stream, "I")
        if math.prod(shape) * _ITEM_BYTES.get(kind, 0) != length or not length or stream.tell() + length > size:
            raise ValueError(name)
        yield name, shape, kind, stream.read(length) if length <= _SETTING_BYTES else b""
        if length > _SETTING_BYTES:
            stream.seek(length, 1)


def _aliases(stream: BinaryIO) -> Iterator[tuple[str, str]]:
    for _ in range(_number(stream, "I")):
        yield _text(stream), _text(stream)


def _fit(name: str, shape: tuple[int, ...], sizes: dict[str, int]) -> None:
    """Learn the sizes that letters stand for from this weight, or hold it against them."""
    letters = next((letters for pattern, letters in _SHAPES if pattern.fullmatch(name)), None)
    if letters is None or len(letters) != len(shape):
        raise ValueError(name)
    for letter, length in zip(letters, shape, strict=True):
        times = int(letter[:-1] or 1)
        if length % times or sizes.setdefault(letter[-1], length // times) != length // times:
            raise ValueError(name)


def _require_settings(settings: dict[str, int], sizes: dict[str, int]) -> None:
    missing = {"v", "t", "d", "h", "f", "b", "n"} - sizes.keys()
    if missing or sizes["h"] % sizes["n"]:
        raise ValueError(f"sizes {sizes}")
    for name, value in settings.items():
        if value != _FIXED.get(name, 0) and not _FREE.fullmatch(name):
            raise ValueError(name)
        if name.endswith("/num_heads") and value != sizes["n"]:
            raise ValueError(name)
        # Distances are put into buckets by the logarithm of distance / (buckets / 2), of which there must be some.
        if name.endswith("/relative_attention_max_distance") and value <= sizes["b"] // 2:
            raise ValueError(name)
    if not {"encoder/num_heads", "decoder/num_heads"} <= settings.keys() or sizes["b"] < 4:
        raise ValueError("num_heads")


def _number(stream: BinaryIO, kind: str) -> int:
    size = struct.calcsize(kind)
    data = stream.read(size)
    if len(data) < size:
        raise ValueError("cut short")
    return int(struct.unpack(f"<{kind}", data)[0])


def _text(stream: BinaryIO) -> str:
    length = _number(stream, "H")
    data = stream.read(length)
    if len(data) < length or length > _MAX_NAME_BYTES or not data.endswith(b"\0"):
        raise ValueError("cut short")
    return data[:-1].decode("utf-8")
