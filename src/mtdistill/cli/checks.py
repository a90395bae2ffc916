"""What can be refused before anything heavy is loaded: minutes of preparation are no place to learn of a typing error.

Imported by the commands; imports config, data, errors, messages.
"""

import os
from pathlib import Path

from mtdistill.config import DataConfig, RunConfig
from mtdistill.errors import ConfigError
from mtdistill.messages import tr


def require_run(config: RunConfig) -> None:
    """The text of a run is there, and its results can be written.

    Raises:
        ConfigError: the output folder cannot be written.
        DataError: there is no such text.
    """
    require_text(config.data)
    require_output(config.output)


def require_text(data: DataConfig) -> None:
    """Every corpus is built in, and every file or folder is there; what is in them is not looked at.

    Raises:
        DataError: there is no such corpus, file or folder.
    """
    from mtdistill.data.corpora import require_known

    for name in (*data.train, *data.extra, *data.validation, *data.test):
        require_known(name)


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


def require_output(folder: str | Path) -> None:
    """A folder in which results can be written, or that can be made.

    Raises:
        ConfigError: a file is in the way, or writing is not allowed.
    """
    folder = Path(folder).absolute()
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
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
