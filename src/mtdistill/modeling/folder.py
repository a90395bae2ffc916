"""What a model folder tells about its model: a JSON file beside the weights.

Imported by teacher, student, export; imports nothing of ours.
"""

import json
from pathlib import Path
from typing import Any

INFO_FILE = "mtdistill.json"  # of students and exports
RECORD_FILE = "training_record.json"  # of teachers


def read_info(folder: Path) -> dict[str, Any]:
    """Languages and whatever else is known; empty for a model of another tool.

    Raises:
        ValueError: the file is there and holds no JSON object.
    """
    for name in (INFO_FILE, RECORD_FILE):
        if (folder / name).is_file():
            info = json.loads((folder / name).read_text(encoding="utf-8"))
            if not isinstance(info, dict):
                raise ValueError(f"{name}: no object")
            return info
    return {}
