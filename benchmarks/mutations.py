"""What can happen to a file: damage by chance, and changes by somebody who knows its format.

Imported by fuzz_loaders.py and by the tests. Everything is drawn from the dice that are given.
"""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import random
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import zstandard
from byte_damage import DAMAGE, ODD_NUMBERS

PACKERS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    ".gz": (gzip.compress, gzip.decompress),
    ".bz2": (bz2.compress, bz2.decompress),
    ".xz": (lzma.compress, lzma.decompress),
    ".zst": (zstandard.ZstdCompressor().compress, zstandard.ZstdDecompressor().decompress),
}
ODD_VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 7, 2**31, 2**63, 2**70, 10**4000, -0.5, 1e308, float("nan"), "", "x", "../../x", "/dev/zero",
    "\ud800", "0", [], {}, [None], ["x"], [1, 2], {"x": 1}, [[[]]],
]  # fmt: skip
OTHER_FILES = [
    b"", b"\0" * 1000, b"null", b"[]", b"{}", b"0", b'"x"', b"[" * 100_000, b'{"a":' * 50_000, b"PK\5\6" + b"\0" * 18,
    b"\x89PNG\r\n\x1a\n", b"\x80\x02}q\x00.", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, ",
    b"MZ", b"\x7fELF", "\ufeff文".encode("utf-16"), b"\xff" * 64, b"a = 1\n" * 3, b"9" * 100_000, b"\n" * 5000,
]  # fmt: skip


def mutate(place: Path, specimens: Path, dice: random.Random) -> str:
    """Change one file of a copied specimen; which and how, in words."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    path = dice.choice(files)
    name = path.relative_to(place).as_posix()
    content = path.read_bytes()
    if dice.random() < 0.06:
        return f"{_exchange(path, place, specimens, dice)} {name}"
    if dice.random() < 0.35 and (structured := _structured(path, content, dice)):
        changed, how = structured
    else:
        how = dice.choice(list(DAMAGE))
        changed = DAMAGE[how](content, dice)
    path.unlink()  # not written into: it may be linked
    path.write_bytes(changed)
    return f"{how} {name}"


def _exchange(path: Path, place: Path, specimens: Path, dice: random.Random) -> str:
    """Put something else where a file was."""
    how = dice.choice(["other_specimen", "other_specimen", "other_file", "missing", "folder"])
    path.unlink()
    if how == "other_specimen":
        shutil.copy(dice.choice(sorted(other for other in specimens.rglob("*") if other.is_file())), path)
    elif how == "other_file":
        path.write_bytes(dice.choice(OTHER_FILES))
    elif how == "folder":
        path.mkdir()
    return how


def _structured(path: Path, content: bytes, dice: random.Random) -> tuple[bytes, str] | None:
    """A change that keeps the outer form whole, as somebody who means it would make it; None: no form is known."""
    if path.suffix == ".json":
        return _odd_json(content, dice), "odd_json"
    if path.suffix == ".jsonl":
        lines = content.splitlines(keepends=True)
        place = dice.randrange(len(lines))
        lines[place] = _odd_json(lines[place], dice) + b"\n"
        return b"".join(lines), "odd_json"
    if path.suffix in PACKERS:
        pack, unpack = PACKERS[path.suffix]
        how = dice.choice(list(DAMAGE))
        return pack(DAMAGE[how](unpack(content), dice)), f"inside:{how}"
    if path.suffix == ".pt":
        change = _odd_bundle if path.name == "student_best.pt" and dice.random() < 0.5 else _odd_zip
        return change(content, dice), "inside:bundle"
    if path.suffix == ".safetensors":
        length = int.from_bytes(content[:8], "little")
        header = _odd_json(content[8 : 8 + length], dice)
        return len(header).to_bytes(8, "little") + header + content[8 + length :], "odd_header"
    if path.suffix == ".onnx":
        return _odd_graph(content, dice), "odd_graph"
    if path.name == "model.bin":
        return _odd_variables(content, dice), "odd_variables"
    if path.suffix == ".toml":
        return _odd_toml(content, dice), "odd_toml"
    return None


def _odd_json(content: bytes, dice: random.Random) -> bytes:
    root = json.loads(content)
    places: list[tuple[Any, Any]] = []
    waiting = [root]
    while waiting and len(places) < 3000:
        node = waiting.pop()
        for key in node if isinstance(node, dict) else range(min(len(node), 50)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                waiting.append(node[key])
    if not places:
        return json.dumps(dice.choice(ODD_VALUES[:-15])).encode()
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        # First any depth at the same chance: the settings of a tokenizer stand beside thousands of pieces.
        node, key = dice.choice(dice.choice([places[:20], places[:200], places]))
        with contextlib.suppress(KeyError, IndexError):
            if dice.random() < 0.15:
                del node[key]
            elif isinstance(node, dict) and dice.random() < 0.15:
                node[f"{key}x"] = node.pop(key)
            elif isinstance(node[key], int | float) and dice.random() < 0.5:
                node[key] = dice.choice(ODD_NUMBERS)
            else:
                node[key] = dice.choice(ODD_VALUES)
    return _dumped(root)


def _dumped(value: Any) -> bytes:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value).encode()
    finally:
        sys.set_int_max_str_digits(limit)


def _odd_toml(content: bytes, dice: random.Random) -> bytes:
    lines = content.decode().split("\n")
    place = dice.randrange(len(lines))
    name = lines[place].partition("=")[0] or "x"
    odd = ["0x" + "f" * 5000, "9" * 5000, "1e999", "nan", "-inf", "1979-05-27T07:32:00Z", "[[[[]]]]", "{a={b={}}}", '""', "true",
           '"' + "y" * 100_000 + '"', "-1", "0", '["a", 1]', "[" * 5000, '"\\u0000"', "9223372036854775808"]  # fmt: skip
    lines[place] = dice.choice([
        f"{name} = {dice.choice(odd)}", f"{'a.' * 3000}a = 1", f"{'k' * 50_000} = 1", f"[{name.strip() or 'x'}]",
        f"{name} = {dice.choice(odd)}", "\n".join(f"k{number} = {number}" for number in range(500)),
    ])  # fmt: skip
    return "\n".join(lines).encode()


def _odd_zip(content: bytes, dice: random.Random) -> bytes:
    """One member changed, and packed again with the right checksum."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(made, "w") as written:
        chosen = dice.choice([name for name in given.namelist() if name.endswith("data.pkl")] * 5 + given.namelist())
        packing = dice.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        for name in given.namelist():
            inside = given.read(name)
            if name == chosen:
                inside = DAMAGE[dice.choice(list(DAMAGE))](inside, dice)
            written.writestr(name, inside, packing)
    return made.getvalue()


def _odd_bundle(content: bytes, dice: random.Random) -> bytes:
    """Values of a bundle changed, through torch itself."""
    bundle = torch.load(io.BytesIO(content), weights_only=True)
    choice = dice.randrange(8)
    name = dice.choice(list(bundle["weights"]))
    weight = bundle["weights"][name]
    if choice < 3:
        bundle["model_config"] = _odd_json(bundle["model_config"].encode(), dice).decode()
    elif choice == 3:
        file = dice.choice(list(bundle["tokenizer"]))
        bundle["tokenizer"][file] = _odd_json(bundle["tokenizer"][file].encode(), dice).decode()
    elif choice == 4:
        del bundle["weights"][name]
    elif choice == 5:
        bundle["weights"][name] = dice.choice([
            weight.double(), weight.half(), weight.long(), weight.bool(), weight.to(torch.complex64), weight[:1],
            weight * float("nan"), weight.reshape(-1), weight.to_sparse(), weight.unsqueeze(0), torch.empty(0),
            weight.T, "x", None, 3,
            torch.zeros(1).expand(10**6, 10**6), torch.zeros(1).expand(weight.shape),
        ])  # fmt: skip
    elif choice == 6:
        key = dice.choice(list(bundle))
        bundle[key] = dice.choice([value for value in ODD_VALUES if value != "\ud800"])
    else:
        file = dice.choice(list(bundle["tokenizer"]))
        name = dice.choice(["../x.json", "..", "", "/x", "a\0b", "x" * 300])
        bundle["tokenizer"][name] = bundle["tokenizer"].pop(file)
    made = io.BytesIO()
    torch.save(bundle, made)
    return made.getvalue()


def _odd_graph(content: bytes, dice: random.Random) -> bytes:
    """A node, a weight or an attribute of a graph changed, through onnx itself."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    node, weight = dice.choice(graph.node), dice.choice(graph.initializer)
    choice = dice.randrange(9)
    if choice == 0:
        node.op_type = dice.choice([*(other.op_type for other in graph.node), "Loop", "Scan", "NonZero", "Tile", "Pad"])
    elif choice == 1 and node.input:
        node.input[dice.randrange(len(node.input))] = dice.choice(graph.initializer).name
    elif choice == 2 and node.input:
        del node.input[dice.randrange(len(node.input))]
    elif choice == 3:
        attribute = dice.choice([attribute for each in graph.node for attribute in each.attribute])
        number = dice.choice([-1, 0, 1, 7, 2**28, 2**31, 2**40, 2**62, -(2**63)])
        if attribute.HasField("t"):  # a constant: sizes of others are computed from some of them
            attribute.t.raw_data = struct.pack("<q", number) * max(1, len(attribute.t.raw_data) // 8)
        else:
            attribute.i = number
    elif choice in (4, 5) and weight.dims:
        weight.dims[dice.randrange(len(weight.dims))] = dice.choice([0, 1, 3, 2**20, 2**33, 2**62, -1])
    elif choice == 6 and weight.raw_data:
        weight.raw_data = DAMAGE[dice.choice(["flip_bits", "cut_short", "blow_up"])](weight.raw_data, dice)
    elif choice == 7:
        weight.data_type = dice.randrange(1, 17)
    else:
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=dice.choice(["../x", "/etc/passwd", "encoder_model.onnx"]))
        weight.external_data.add(key="length", value=str(dice.choice(ODD_NUMBERS)))
    return bytes(model.SerializeToString())


def _odd_variables(content: bytes, dice: random.Random) -> bytes:
    """A weight or a setting in a model of CTranslate2 changed, and everything around it fitting."""
    head = 4 + 2 + int.from_bytes(content[4:6], "little") + 4  # version, name of the architecture, its revision
    given, found = io.BytesIO(content[head:]), []
    for _ in range(struct.unpack("I", given.read(4))[0]):
        name = given.read(struct.unpack("H", given.read(2))[0])
        rank = given.read(1)[0]
        dims, kind = list(struct.unpack(f"{rank}I", given.read(4 * rank))), given.read(1)[0]
        found.append((name, dims, kind, given.read(struct.unpack("I", given.read(4))[0])))
    aliases = given.read()
    choice = dice.randrange(7)
    # A setting more often than weights, of which there are more.
    place = dice.choice([number for number, each in enumerate(found) if not each[1] or choice != 3])
    name, dims, kind, data = found[place]
    if choice == 0 and dims:
        item = max(1, len(data) // max(1, int(np.prod(dims))))
        dims[dice.randrange(len(dims))] = dice.choice([0, 1, 2, 3, 7, 64, 5000])
        data = (data * 400)[: int(np.prod(dims)) * item]
    elif choice == 1:
        dims = dice.choice([[], dims[::-1], [int(np.prod(dims))], [1, *dims], [*dims, 1], [2**16, 2**16], [0]])
    elif choice == 2:
        kind = dice.randrange(8)
    elif choice == 3:
        data = dice.choice(b"\0\1\2\7\x7f\x80\xff").to_bytes() + dice.choice([b"\0", b"\xff"]) * (len(data) - 1)
    elif choice == 4:
        name = dice.choice(found)[0]
    elif choice == 5:
        data = DAMAGE[dice.choice(["flip_bits", "overwrite"])](data, dice)
    found[place] = (name, dims, kind, data)
    if choice == 6:
        del found[place]
    written = content[:head] + struct.pack("<I", len(found))
    for name, dims, kind, data in found:
        written += struct.pack("<H", len(name)) + name + struct.pack(f"<B{len(dims)}I", len(dims), *dims)
        written += struct.pack("<BI", kind, len(data)) + data
    return bytes(written + aliases)
