"""What can be refused before anything heavy is loaded: minutes of preparation are no place to learn of a typing error.

Imported by its neighbours; imports config, data and decoding.
"""

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mtdistill.config import DataConfig, RunConfig
from mtdistill.errors import ConfigError, TeacherError
from mtdistill.messages import tr

if TYPE_CHECKING:
    from mtdistill.decoding.ctranslate2 import ComputeType

_FIRST_PAIRS = 1000  # of each corpus: a wrong encoding or format shows in them, and they cost milliseconds
_REFERENCE = RunConfig.model_fields["teacher"].get_default(call_default_factory=True).path


def require_run(config: RunConfig) -> None:
    """The text and the teacher of a run are there, and its results can be written.

    Raises:
        ConfigError: the output folder cannot be written.
        DataError: there is no such text.
        TeacherError: there is no such teacher.
    """
    require_output(config.output)
    require_teacher(config.teacher.path)
    require_text(config.data)


def require_text(data: DataConfig) -> None:
    """Every corpus is built in, or files whose first pairs can be read.

    Raises:
        DataError: there is no such corpus, file or folder, it is empty, of another format or encoding, or the languages
            are not known.
    """
    from mtdistill.data.corpora import is_builtin, require_known

    names = (*data.train, *data.extra, *data.validation, *data.test)
    for name in names:
        require_known(name)
    from mtdistill.data.prepared import languages_of
    from mtdistill.data.readers import read_pairs

    languages = languages_of(data)
    for name in names:
        if not is_builtin(name):
            for _ in islice(read_pairs([name], *languages), _FIRST_PAIRS):
                pass


def require_files(paths: Sequence[str | Path]) -> None:
    """Files or folders that are there; what is in them is not looked at, for that takes the languages of a model.

    Raises:
        DataError: one is not there, or is an empty file.
    """
    from mtdistill.data.text_files import file_error, system_error

    for path in map(Path, paths):
        try:
            is_empty = path.stat().st_size == 0 and path.is_file()
        except OSError as error:
            raise system_error(path, error) from error
        if is_empty:
            raise file_error(
                path,
                en="got an empty file, accepted one with content. Check the file.",
                zh="文件为空，应有内容。请检查该文件。",
            )


def require_teacher(path: str) -> None:
    """A folder that is there, or the teacher that comes with the package.

    Raises:
        TeacherError: there is no such folder.
    """
    if path != _REFERENCE and not Path(path).is_dir():
        raise TeacherError(
            tr(
                en=f"there is no such teacher: got {path}, accepted a Hugging Face folder with a T5 model, or {_REFERENCE}. "
                "Check the path.",
                zh=f"没有这个教师模型：{path}，应为含有 T5 模型的 Hugging Face 文件夹，或 {_REFERENCE}。请检查路径。",
            )
        )


def require_compute_type(name: str) -> "ComputeType":
    """A number format that CTranslate2 computes in, by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    from mtdistill.decoding.ctranslate2 import ComputeType

    if name not in (known := get_args(ComputeType)):
        raise ConfigError(
            tr(
                en=f"no such number format: got {name!r}, accepted {', '.join(known)}. Choose one of them.",
                zh=f"没有这种数值格式：{name!r}，可选 {'、'.join(known)}。请选择其中之一。",
            )
        )
    return name  # type: ignore[return-value]


def require_page(file: Path) -> None:
    """A file that can be written, in a folder that is there or can be made.

    Raises:
        ConfigError: it is a folder, or its folder cannot be written.
    """
    if file.is_dir():
        raise ConfigError(
            tr(
                en=f"the page cannot be written: got {file}, a folder; accepted the name of a file. Add one, such as "
                f"{file / 'comparison.html'}",
                zh=f"无法写入网页：{file} 是文件夹，应为文件名。请加上文件名，例如 {file / 'comparison.html'}",
            )
        )
    require_output(file.parent)


def require_output(folder: str | Path, *, to_write: bool = True) -> None:
    """A folder in which results can be written, or that can be made; or results that are only looked at.

    Raises:
        ConfigError: a file is in the way, or writing is not allowed.
    """
    folder = Path(folder).absolute()
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if nearest.is_dir() and (not to_write or os.access(nearest, os.W_OK | os.X_OK)):
        return
    if nearest.is_dir():
        reason = tr(en=f"{nearest} is not writable", zh=f"{nearest} 不可写")
    else:
        reason = tr(en=f"{nearest} is no folder", zh=f"{nearest} 不是文件夹")
    raise ConfigError(
        tr(
            en=f"the results cannot be written: got {folder} ({reason}), accepted a folder that can be written, or a "
            "new name. Choose another one.",
            zh=f"无法写入结果：得到 {folder}（{reason}），需要可写的文件夹或新的名称。请换一个。",
        )
    )
