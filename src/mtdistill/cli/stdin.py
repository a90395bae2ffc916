"""Standard input, line by line: text of any origin, in bounded memory. Imported by cli.menu and cli.use."""

import sys

from mtdistill.errors import DataError
from mtdistill.messages import tr

MAX_LINE_CHARACTERS = 2**20  # far beyond any sentence; what has no line ends (/dev/zero) must not fill the memory


def is_terminal() -> bool:
    """Whether a person is typing."""
    return sys.stdin is not None and sys.stdin.isatty()


def read_line() -> str | None:
    """The next line without its end; None at the end of input.

    Raises:
        DataError: bytes that are no text, or a line without end.
    """
    try:
        line = sys.stdin.readline(MAX_LINE_CHARACTERS + 1) if sys.stdin else ""  # None: closed by who started us
    except UnicodeDecodeError as error:
        raise DataError(
            tr(
                en=f"standard input could not be read: got bytes that are no {error.encoding}, accepted text. "
                "Convert it to UTF-8 first.",
                zh=f"无法读取标准输入：其中有不是 {error.encoding} 的字节，需要文本。请先转换为 UTF-8。",
            )
        ) from error
    if len(line) > MAX_LINE_CHARACTERS:
        raise DataError(
            tr(
                en=f"standard input could not be read: got a line of more than {MAX_LINE_CHARACTERS} characters, "
                "accepted one sentence a line. Break the line.",
                zh=f"无法读取标准输入：有一行超过 {MAX_LINE_CHARACTERS} 个字符，应为每行一个句子。请拆开该行。",
            )
        )
    return line.removesuffix("\n") if line else None
