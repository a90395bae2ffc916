"""What a training was begun with, kept in its folder: one that is resumed must have the same.

Imported by distillation and teacher.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtdistill.errors import CheckpointError
from mtdistill.files import write_atomically
from mtdistill.messages import tr

BEGUN_FILE = "begun.json"


def note_beginning(folder: Path, wanted: Mapping[str, Any], *, resumed: bool) -> None:
    """Write down what a training begins with, or hold a resumed one against it.

    Args:
        folder: of the run.
        wanted: what it depends on, by name; anything that JSON knows.
        resumed: it goes on from a checkpoint.

    Raises:
        CheckpointError: the checkpoint is of a training with something else, or what it began with cannot be read.
    """
    file, wanted = folder / BEGUN_FILE, json.loads(json.dumps(wanted))
    if not resumed:
        write_atomically(file, json.dumps(wanted, indent=2))
        return
    try:
        begun = dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:  # begun by a version that did not write it down
        return
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            tr(
                en=f"the training cannot go on: got {file} ({type(error).__name__}), accepted the file that this version "
                "wrote. Copy it again, or begin a new training: without --resume, of a teacher in another --output.",
                zh=f"无法继续训练：{file} 有问题（{type(error).__name__}），需要由本版本写出的文件。"
                "请重新复制，或重新训练：去掉 --resume，教师模型则换一个 --output。",
            )
        ) from error
    if changed := [name for name, value in wanted.items() if begun.get(name) != value]:
        raise CheckpointError(
            tr(
                en=f"a training is resumed with what it was begun with; different now: {', '.join(changed)}. Use the same "
                "again, or begin a new training: without --resume, of a teacher in another --output.",
                zh=f"继续训练时必须与开始时一致；现在不同的有：{'、'.join(changed)}。请恢复原样，"
                "或重新训练：去掉 --resume，教师模型则换一个 --output。",
            )
        )
