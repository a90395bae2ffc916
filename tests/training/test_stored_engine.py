"""The engine of a run, from one process to the next."""

from pathlib import Path

import pytest

from mtdistill.errors import CheckpointError
from mtdistill.training.engine import Engine
from mtdistill.training.stored_engine import ENGINE_FILE, store_engine, stored_engine


def test_a_resumed_run_keeps_to_its_engine(tmp_path: Path) -> None:
    assert stored_engine(tmp_path) is None
    engine = Engine(bfloat16=True, parts=3, threads_per_part=2, max_part_tokens=512)
    store_engine(tmp_path, engine)
    assert stored_engine(tmp_path) == engine


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff", b'{"parts": "many"}', b'{"parts": 1000000}', b'{"max_part_tokens": 0}'],
    ids=repr,
)
def test_a_damaged_engine_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ENGINE_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"got .*engine\.json .*without --resume"):
        stored_engine(tmp_path)
