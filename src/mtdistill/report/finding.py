"""Report cards on disk: those of run folders and exports."""

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from mtdistill.errors import DataError, MtdistillError
from mtdistill.files import absolute
from mtdistill.messages import tr
from mtdistill.report.card import ReportCard

REPORT_FILE = "report.json"


def find_card(folder: Path | None) -> ReportCard | None:
    """The card of a run folder or export; None where there is none that this version can read."""
    if folder is not None:
        with contextlib.suppress(OSError, UnicodeDecodeError, MtdistillError):
            return ReportCard.from_json((folder / REPORT_FILE).read_text(encoding="utf-8"))
    return None


def read_cards(paths: Sequence[Path]) -> dict[str, ReportCard]:
    """Cards by name, in the order of the paths.

    Args:
        paths: run folders, exports, or report files. The name is the folder's, with as many of the folders above it as
            it takes to tell the cards apart; the path where two cards are in one folder.

    Raises:
        DataError: no card there, or one that cannot be read.
    """
    files = [absolute(_file(path)) for path in paths]
    return {name: _read(file) for name, file in zip(_names(files), files, strict=True)}


def card_name(folder: Path) -> str:
    """What a student is called beside others: its folder, without the word that every run folder starts with."""
    return folder.as_posix().removeprefix("distillation-")


def _file(path: Path) -> Path:
    """The report file that is meant; what is not there is taken for a folder unless it is named like a file."""
    return path if path.is_file() or (path.suffix == ".json" and not path.is_dir()) else path / REPORT_FILE


def _read(file: Path) -> ReportCard:
    try:
        return ReportCard.from_json(file.read_text(encoding="utf-8"))
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        measured = shlex.quote(str(file.parent))
        raise DataError(
            tr(
                en=f"there is no report card: got {file} ({type(error).__name__}), accepted a run folder or export "
                f"with {REPORT_FILE}. Measure the student first: mtdistill test {measured}",
                zh=f"找不到成绩单：{file}（{type(error).__name__}），需要含有 {REPORT_FILE} 的训练文件夹或导出文件夹。"
                f"请先测试学生模型：mtdistill test {measured}",
            )
        ) from error


def _names(files: Sequence[Path]) -> list[str]:
    folders = [file.parent for file in files]
    longest = max((len(folder.parts) for folder in folders), default=0)
    for depth in range(1, longest + 1):
        names = [card_name(Path(*folder.parts[-depth:])) for folder in folders]
        if len(set(names)) == len(set(files)):
            return names
    return list(map(str, files))  # several in one folder
