"""What the updates of a run are computed with, kept in its folder: another number format or cut would round differently.

Imported by distillation; imports training.engine.
"""

import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from mtdistill.errors import CheckpointError
from mtdistill.files import write_atomically
from mtdistill.messages import tr
from mtdistill.training.engine import Engine

ENGINE_FILE = "engine.json"
_MAX_PARTS = 1024  # as many threads would be started


def store_engine(folder: Path, engine: Engine) -> None:
    """Write it into the folder of a run."""
    write_atomically(folder / ENGINE_FILE, json.dumps(asdict(engine)))


def stored_engine(folder: Path) -> Engine | None:
    """What the updates of an interrupted run were computed with; None where it did not get that far.

    Raises:
        CheckpointError: the file cannot be read.
    """
    file = folder / ENGINE_FILE
    if not file.is_file():
        return None
    try:
        engine = TypeAdapter(Engine).validate_json(file.read_bytes())
        if min(engine.threads_per_part, engine.max_part_tokens) < 1 or not 1 <= engine.parts <= _MAX_PARTS:
            raise ValueError(f"{engine}")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            tr(
                en=f"the run cannot go on: got {file} ({type(error).__name__}), accepted the file that this version "
                "wrote. Copy it again, or start anew without --resume.",
                zh=f"无法继续训练：{file} 有问题（{type(error).__name__}），需要由本版本写出的文件。"
                "请重新复制，或去掉 --resume 重新开始。",
            )
        ) from error
    return engine
