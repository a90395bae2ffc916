"""`student_best.pt`: a student in one self-contained file, and every other form a student is loaded from.

The file holds plain values and tensors only and is read with ``weights_only=True``: a file from elsewhere never
executes code. Imported by distillation, export, mtdistill and student.loading; imports data, decoding and modeling.
"""

import copy
import io
import json
import pickletools
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.data.tokenizer import load_tokenizer
from mtdistill.decoding import DEFAULT_MAX_NEW_TOKENS
from mtdistill.errors import CheckpointError
from mtdistill.files import replacing_folder, write_atomically
from mtdistill.messages import tr
from mtdistill.modeling.folder import (
    CHECKSUMS,
    INFO_FILE,
    checksums,
    generation_of,
    load_folder,
    mismatches,
    plausible_config,
    read_info,
)

FORMAT = "mtdistill student"
FORMAT_VERSION = 1
_MAX_BYTES = 4 * 2**30
_PICKLE_PROTOCOL = 2  # of torch
_MAX_OPCODES = 500_000  # some 30 for each weight; reading so many takes two seconds
_REFUSED_OPCODES = {"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}  # further ways to name something
# All that the pickle of a bundle names. What torch accepts beside these can allocate without limit: bytearray.
_PICKLED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16")),
}


@dataclass(frozen=True)
class Student:
    """A student with its tokenizer and what is known about it.

    Attributes:
        model: float32, in evaluation mode.
        tokenizer: the teacher's.
        info: languages, teacher, resolved configuration, blueprint and validation scores; plain JSON values.
    """

    model: T5ForConditionalGeneration
    tokenizer: PreTrainedTokenizerFast
    info: Mapping[str, Any] = field(default_factory=dict)


def save_folder(student: Student, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a student as a Hugging Face folder, which takes the place of an older one at once."""
    model = student.model if dtype == torch.float32 else copy.deepcopy(student.model).to(dtype)
    model.config.use_cache = True  # the Trainer switches it off while it trains
    model.generation_config.max_new_tokens = DEFAULT_MAX_NEW_TOKENS  # 20 otherwise, and longer texts would be cut
    with replacing_folder(folder) as fresh:
        model.save_pretrained(str(fresh))
        student.tokenizer.save_pretrained(str(fresh))
        info = {**student.info, CHECKSUMS: checksums(fresh)}
        write_atomically(fresh / INFO_FILE, json.dumps(info, ensure_ascii=False, indent=2))


def save_bundle(student: Student, path: Path) -> None:
    """Write a student as one self-contained file."""
    student.model.config.use_cache = True
    with tempfile.TemporaryDirectory() as scratch:
        student.tokenizer.save_pretrained(scratch)
        tokenizer_files = {file.name: file.read_text(encoding="utf-8") for file in Path(scratch).iterdir()}
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model_config": student.model.config.to_json_string(use_diff=False),
        "weights": dict(student.model.state_dict()),
        "tokenizer": tokenizer_files,
        "info": json.dumps(student.info, ensure_ascii=False),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_student(path: Path) -> Student:
    """Load a student from `student_best.pt`, a Hugging Face folder, or a run folder.

    Raises:
        CheckpointError: nothing there, damaged, another kind of file, or written by a newer version.
        DataError: a folder without a tokenizer.
    """
    if path.is_dir():
        best = path / "checkpoints" / "student_best.pt"
        return load_student(best) if best.is_file() else _from_folder(path)
    if not path.is_file():
        raise CheckpointError(
            tr(
                en=f"there is no student: got {path}, accepted student_best.pt, a Hugging Face folder or a run folder. "
                "Check the path, or distil a student: mtdistill distill quick",
                zh=f"找不到学生模型：{path}。可以是 student_best.pt、Hugging Face 文件夹或训练文件夹。"
                "请检查路径，或先蒸馏一个：mtdistill distill quick",
            )
        )
    try:
        return _from_bundle(path)
    except CheckpointError:
        raise
    except Exception as error:  # torch, zip, pickle and our readers raise their own for every kind of damage
        raise CheckpointError(_not_a_student(path, f"{type(error).__name__}: {error}")) from error


def _from_folder(folder: Path) -> Student:
    try:
        info = read_info(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(_not_a_student(folder, str(error))) from error
    model, tokenizer = load_folder(folder)
    if problems := mismatches(model, tokenizer):
        raise CheckpointError(_not_a_student(folder, "; ".join(problems)))
    return Student(model, tokenizer, info)


def _from_bundle(path: Path) -> Student:
    _require_whole(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(_not_a_student(path, "format"))
    if content["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            tr(
                en=f"this file was written by another version: got format {content['format_version']}, accepted "
                f"{FORMAT_VERSION}. Update mtdistill.",
                zh=f"该文件由其他版本写出：格式为 {content['format_version']}，本版本支持 {FORMAT_VERSION}。请更新 mtdistill。",
            )
        )
    weights: dict[str, Tensor] = content["weights"]
    for name, weight in weights.items():
        if weight.untyped_storage().nbytes() < weight.numel() * weight.element_size():  # one value shown many times
            raise CheckpointError(_not_a_student(path, name))
    # On the meta device nothing is allocated, however large the sizes that a hostile configuration claims.
    config = plausible_config(json.loads(content["model_config"]), len(weights))
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
    model.load_state_dict(weights, strict=True, assign=True)
    for tied in (model.encoder.embed_tokens, model.decoder.embed_tokens, model.lm_head):
        if tied.weight.data_ptr() == model.shared.weight.data_ptr():
            tied.weight = model.shared.weight
    model.generation_config = generation_of(config)
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in content["tokenizer"].items():
            (Path(scratch) / Path(name).name).write_text(text, encoding="utf-8")
        tokenizer = load_tokenizer(Path(scratch))
    model.eval()
    if problems := mismatches(model, tokenizer):
        raise CheckpointError(_not_a_student(path, "; ".join(problems)))
    return Student(model, tokenizer, _info(content["info"]))


def _require_whole(path: Path) -> None:
    """Before torch unpacks a file: it is as it was written, holds no more than its size, and names nothing but tensors."""
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise CheckpointError(_not_a_student(path, f"{size} bytes"))
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > size:  # torch packs without compressing
            raise CheckpointError(_not_a_student(path, tr(en="unpacks to more than its size", zh="解压后大于文件本身")))
        if damaged := archive.testzip():
            raise CheckpointError(_not_a_student(path, damaged))
        for member in members:
            if member.filename.endswith(".pkl"):
                _require_tensors(path, archive.read(member))


def _require_tensors(path: Path, pickled: bytes) -> None:
    for number, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):  # which reads, and executes nothing
        if number == _MAX_OPCODES:
            raise CheckpointError(_not_a_student(path, f"> {_MAX_OPCODES} pickle opcodes"))
        is_named = opcode.name != "GLOBAL" or argument in _PICKLED
        if not is_named or opcode.name in _REFUSED_OPCODES or (opcode.name == "PROTO" and argument != _PICKLE_PROTOCOL):
            raise CheckpointError(_not_a_student(path, f"{opcode.name} {argument}"))


def _info(text: str) -> dict[str, Any]:
    info = json.loads(text)
    if not isinstance(info, dict):
        raise ValueError("no object")
    return info


def _not_a_student(path: Path, detail: str) -> str:
    return tr(
        en=f"the student could not be read: got {path} ({detail}), accepted a file that mtdistill wrote. "
        "Copy it again, or use the folder student_best beside it.",
        zh=f"无法读取学生模型：{path}（{detail}），需要由 mtdistill 写出的文件。请重新复制，或使用旁边的 student_best 文件夹。",
    )
