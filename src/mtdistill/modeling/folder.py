"""Model folders, of ours or of strangers: what they tell about their model, and loading one without trusting it.

A folder is checked before a library reads it: against the checksums in its own record where there are some, and for
what transformers would do on a configuration's word alone, which is to run code and to allocate whatever it claims.
Imported by distillation, export, student and teacher; imports data and modeling.t5.
"""

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import GenerationConfig, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from mtdistill.data.tokenizer import PAD_ID, load_tokenizer
from mtdistill.errors import CheckpointError
from mtdistill.files import changed_files, checksums_of
from mtdistill.messages import tr
from mtdistill.modeling.t5 import load_model, unreadable

INFO_FILE = "mtdistill.json"  # of students and exports
RECORD_FILE = "training_record.json"  # of teachers
_RECORDS = (INFO_FILE, RECORD_FILE)
CHECKSUMS = "sha256"  # key in either: checksums of the other files by name
_ADAPTER = "adapter_config.json"  # transformers would load weights from wherever it says, unasked
_MAX_RECORD_BYTES = 2**24  # ours have some kilobytes
_MAX_COUNT = 10**7  # of anything a configuration counts; the largest vocabularies have some 250,000 pieces
# Settings by which a configuration asks for code or kernels of others, or for weights that are not as they stand there.
_REFUSED_SETTINGS = ("auto_map", "attn_implementation", "_attn_implementation", "quantization_config")


def read_info(folder: Path) -> dict[str, Any]:
    """Languages and whatever else is known, without checksums; empty for a model of another tool.

    Raises:
        ValueError: the file is there and holds no JSON object.
    """
    return {key: value for key, value in _record(folder).items() if key != CHECKSUMS}


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 by name of what a library reads from a model folder: neither the record nor the text for people."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    return checksums_of(folder, (path for path in files if path.name not in _RECORDS))


def require_unchanged(folder: Path) -> None:
    """Compare the files of a folder with the checksums in its record, if it has any and can be read.

    Raises:
        CheckpointError: a file is missing or has changed; the message names it.
    """
    wanted: object = None
    with contextlib.suppress(OSError, ValueError):  # said by whoever needs what is in it
        wanted = _record(folder).get(CHECKSUMS)
    if not isinstance(wanted, dict):
        return
    record = next(name for name in _RECORDS if (folder / name).is_file())
    if changed := changed_files(folder, wanted):
        raise CheckpointError(
            tr(
                en=f"the files of the model are not those that were written: got {folder} ({', '.join(changed)}), "
                f"accepted the checksums in {record}. Copy the folder again; if the change is yours, delete "
                f'"{CHECKSUMS}" from {record}.',
                zh=f"模型文件与写出时不同：{folder}（{'、'.join(changed)}），应与 {record} 中的校验值一致。"
                f'请重新复制该文件夹；若是你自己的修改，请删除 {record} 中的 "{CHECKSUMS}"。',
            )
        )


def load_folder(folder: Path) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]:
    """The model of a Hugging Face folder from anywhere, in evaluation mode, and its tokenizer.

    How it is generated with is decided by us: what the folder says about that is not taken over.

    Raises:
        CheckpointError: the folder cannot be read, has changed, holds another architecture, or asks for code.
        DataError: it holds no tokenizer.
    """
    if not folder.is_dir():
        raise unreadable(folder, os.strerror(errno.ENOTDIR if folder.exists() else errno.ENOENT))
    require_unchanged(folder)
    _require_safetensors(folder)
    try:
        _require_plausible_folder(folder)
    except Exception as error:  # configurations of the wrong types fail in transformers in as many ways
        raise unreadable(folder, f"{type(error).__name__}: {error}") from error
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    model.generation_config = generation_of(model.config)
    return model, tokenizer


def plausible_config(settings: object, tensors: int) -> T5Config:
    """The configuration of a T5 that JSON holds, if it can belong to so many tensors and asks for nothing else.

    Raises:
        ValueError: it cannot, or it does; other errors of transformers for settings of the wrong types.
    """
    config = T5Config.from_dict(_harmless(settings))
    if max(config.num_layers, config.num_decoder_layers) > tensors:  # as many modules would be made
        raise ValueError("num_layers")
    return config


def generation_of(config: T5Config) -> GenerationConfig:
    """How a T5 generates: from its start token to its end token, and nothing else."""
    return GenerationConfig(
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
        use_cache=True,
    )


def mismatches(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """What stands between a model with its tokenizer and a translation; a line for each reason, none if it works."""
    config = model.config
    problems = []
    pieces = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=0))
    if pieces > config.vocab_size:
        problems.append(
            tr(
                en=f"vocabulary: got {pieces} pieces, accepted at most {config.vocab_size}, the rows of the model",
                zh=f"词表：分词器有 {pieces} 个词元，模型最多 {config.vocab_size} 个",
            )
        )
    for name in ("pad_token_id", "eos_token_id"):
        if getattr(tokenizer, name) != getattr(config, name):
            problems.append(
                tr(
                    en=f"{name}: got {getattr(tokenizer, name)} in the tokenizer, accepted {getattr(config, name)}, "
                    "the model's",
                    zh=f"{name}：分词器为 {getattr(tokenizer, name)}，模型为 {getattr(config, name)}",
                )
            )
    for name in ("pad_token_id", "decoder_start_token_id"):
        if getattr(config, name, None) != PAD_ID:
            problems.append(
                tr(
                    en=f"{name}: got {getattr(config, name, None)} in config.json, accepted {PAD_ID}, as in every T5",
                    zh=f"{name}：config.json 中为 {getattr(config, name, None)}，应为 {PAD_ID}（所有 T5 均如此）",
                )
            )
    return problems or _failure(model, tokenizer)


def _failure(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Why two tokens cannot be generated: settings and weights that do not fit each other fail at their first use."""
    generate: Any = model.generate
    try:
        source = tokenizer(["a"], return_tensors="pt").to(model.device)
        with torch.inference_mode():
            if model.config.num_decoder_layers <= model.config.num_layers:
                generate(**source, max_new_tokens=2)
            else:  # transformers cannot, but CTranslate2 can (docs/decisions/0008-shallow-encoders.md)
                model(**source, decoder_input_ids=source["input_ids"])
    except Exception as error:  # whatever torch and transformers find
        reason = f"{type(error).__name__}: {error}"
        return [tr(en=f"a translation fails ({reason})", zh=f"翻译失败（{reason}）")]
    return []


def _record(folder: Path) -> Mapping[str, Any]:
    for name in _RECORDS:
        path = folder / name
        if path.is_file():
            if path.stat().st_size > _MAX_RECORD_BYTES:
                raise ValueError(f"{name}: {path.stat().st_size} bytes")
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, or nested thousands deep
                raise ValueError(f"{name}: {error}") from error
            if not isinstance(record, dict):
                raise ValueError(f"{name}: no object")
            return record
    return {}


def _harmless(settings: object) -> dict[str, Any]:
    if not isinstance(settings, dict):
        raise ValueError("no object")
    for key, value in settings.items():
        if key in _REFUSED_SETTINGS or (isinstance(value, int) and value > _MAX_COUNT):
            raise ValueError(key)
    return settings


def _require_safetensors(folder: Path) -> None:
    """Weights of the older forms are pickles, which can hold code, or other frameworks'."""
    others = sorted(
        file.name for form in ("pytorch_model*.bin", "tf_model*.h5", "flax_model*") for file in folder.glob(form)
    )
    if others and not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            tr(
                en=f"the weights of this model are of a form that is not read: got {folder / others[0]}, accepted "
                "model.safetensors. Load the model with transformers where you trust it, and write it with save_pretrained.",
                zh=f"不读取这种形式的模型权重：{folder / others[0]}，需要 model.safetensors。"
                "如果信任该模型，请用 transformers 加载，再用 save_pretrained 写出。",
            )
        )


def _require_plausible_folder(folder: Path) -> None:
    if (folder / _ADAPTER).exists():
        raise ValueError(_ADAPTER)
    file = folder / "config.json"
    if not file.is_file():
        return  # which is said by whoever wants to read it
    if file.stat().st_size > _MAX_RECORD_BYTES:
        raise ValueError(f"{file.name}: {file.stat().st_size} bytes")
    settings = _harmless(json.loads(file.read_text(encoding="utf-8")))
    if settings.get("model_type") != T5Config.model_type:
        return  # refused by `load_model`, which names it
    names: set[str] = set()
    for weights_file in folder.glob("*.safetensors"):
        weights_file.open("rb").close()  # safetensors calls a file that may not be read one that is missing
        with safe_open(str(weights_file), "pt") as weights:
            names.update(weights.keys())
    config = plausible_config(settings, len(names))
    with torch.device("meta"):  # where nothing is allocated
        parameters = T5ForConditionalGeneration(config).num_parameters()
    if parameters > sum(path.stat().st_size for path in folder.glob("*.safetensors")):  # a byte for each or more
        raise ValueError(f"{parameters} parameters")
