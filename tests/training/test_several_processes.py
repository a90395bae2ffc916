"""Training shared by processes, as torchrun starts them: how often it is looked at, and that resuming is exact."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# Each process runs this; the first writes what came out. Arguments: folder, update to stop at or 0, result.
PROGRAM = """
import hashlib, importlib.util, json, sys
from pathlib import Path
from transformers import TrainerCallback

spec = importlib.util.spec_from_file_location("training_conftest", sys.argv[4])
conftest = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = conftest
spec.loader.exec_module(conftest)
from mtdistill.training.checkpoints import latest_checkpoint
from mtdistill.training.schedule import Schedule

folder, stop_at, result = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == stop_at:
            control.should_save = control.should_training_stop = True


scored = []


def validate(_model):
    scored.append(trainer.state.global_step)
    return {"bleu": 1.0}


schedule = Schedule(epochs=4, batch_size=2, gradient_accumulation=2, learning_rate=0.01, weight_decay=0.01,
                    max_sequence_length=32, warmup_ratio=0.0, evaluations=2)
trainer = conftest.GoldTrainer(conftest.make_model(), conftest.make_rows(40), schedule, folder, validate, callbacks=[Stop()])
trainer.micro_batches, trainer.parts, trainer.dtypes = [], [], set()
checkpoint = latest_checkpoint(folder)
trainer.train(str(checkpoint) if checkpoint else None)
if trainer.is_world_process_zero():
    weights = hashlib.sha256(b"".join(weight.detach().numpy().tobytes() for weight in trainer.model.parameters()))
    rows = [batch.rows.tolist() for batch in trainer.micro_batches]
    result.write_text(json.dumps({"scored": scored, "rows": rows, "weights": weights.hexdigest()}))
"""


def trained(folder: Path, stop_at: int = 0) -> Any:
    program, result = folder.parent / "program.py", folder.parent / "result.json"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    ended = subprocess.run(
        [*command, str(folder), str(stop_at), str(result), str(HERE / "conftest.py")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1] / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(result.read_text(encoding="utf-8"))


def test_two_processes_look_as_often_as_one_and_go_on_exactly(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    assert whole["scored"] == [10, 20]  # 40 pairs, 2 processes x 2 x 2: five updates an epoch
    epochs = [sorted(row for batch in whole["rows"][first : first + 10] for row in batch) for first in (0, 10, 20, 30)]
    assert all(len(set(epoch)) == 20 for epoch in epochs)  # the half of one process
    assert epochs[0] != epochs[1]
    trained(tmp_path / "broken", stop_at=13)
    resumed = trained(tmp_path / "broken")
    assert resumed["rows"] == whole["rows"][26:]
    assert resumed["weights"] == whole["weights"]
