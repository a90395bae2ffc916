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
            try:
                info = json.loads((folder / name).read_text(encoding="utf-8"))
            except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, or nested thousands deep
                raise ValueError(f"{name}: {error}") from error
            if not isinstance(info, dict):
                raise ValueError(f"{name}: no object")
            return info
    return {}
