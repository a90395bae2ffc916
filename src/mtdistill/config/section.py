"""What all sections of the settings have in common.

A setting that may be None is None by default, because TOML cannot write None. Every number has bounds on both sides,
which keep NaN and infinity out. A check that compares settings belongs to the later one of them: then a wrong value
elsewhere does not hide it, and all problems are reported at once. Imported by config.data, config.run and
config.student; imports config.wording.
"""

import unicodedata
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, field_validator

from mtdistill.config.wording import refusal


class Section(BaseModel):
    """A frozen group of settings that refuses unknown names and other types."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,  # "4" is no number and true is no 1: a slip must not become a setting
        validate_default=True,  # checks that compare two settings run also when one of them is left out
        use_attribute_docstrings=True,
    )

    @field_validator("*")
    @classmethod
    def _is_plain_text(cls, value: object) -> object:
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and (
                not text.strip() or any(unicodedata.category(c) in ("Cc", "Cs") for c in text)
            ):
                raise refusal(
                    text, en="text that is not empty, without control characters", zh="不含控制字符的非空文字"
                )
        return value
