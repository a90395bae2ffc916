"""What other libraries print by themselves, and that nothing of ours is lost with it."""

import threading
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from mtdistill.cli.quiet import quiet_libraries


@pytest.fixture(autouse=True)
def _hook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    quiet_libraries()


def test_a_full_disk_is_told_by_the_next_write_and_not_by_the_thread(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer = SummaryWriter(log_dir=str(tmp_path))
    records = writer._get_file_writer().event_writer._async_writer
    monkeypatch.setattr(records._writer, "write", full)
    writer.add_scalar("loss", 1.0, 1)
    records._worker.join(timeout=10)
    with pytest.raises(OSError, match="No space left"):
        writer.add_scalar("loss", 1.0, 2)
    assert capfd.readouterr().err == ""


def test_a_thread_of_ours_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    assert "ZeroDivisionError" in capfd.readouterr().err
