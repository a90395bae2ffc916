"""The section ``data``. Imported by config and config.run; imports config.section and config.wording."""

import re

from pydantic import Field, ValidationInfo, field_validator

from mtdistill.config.section import Section
from mtdistill.config.wording import refusal
from mtdistill.messages import listed

# The names of data.cleaning.RULE_NAMES, which stands above this module; a test keeps the two equal.
CLEANING_RULES = ("empty", "too_long", "encoding_damage", "length_ratio", "copy", "wrong_script", "duplicate")
_LANGUAGE_CODE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*")


class DataConfig(Section):
    """Which text is read, and how it is cleaned, split and tokenised."""

    train: tuple[str, ...] = Field(default=("tatoeba:zh-en",), min_length=1, strict=False)
    """Names of built-in corpora, files, or folders; split into training, validation and test."""
    extra: tuple[str, ...] = Field(default=(), strict=False)
    """More of the same, for the training split only."""
    validation: tuple[str, ...] = Field(default=(), strict=False)
    """Validation pairs of your own; empty: taken from `train`."""
    test: tuple[str, ...] = Field(default=(), strict=False)
    """Test pairs of your own; empty: taken from `train`."""
    source_lang: str | None = None
    """Language code of the sources, such as zh; None: the one the built-in corpus knows."""
    target_lang: str | None = None
    """Language code of the targets, such as en; None: the one the built-in corpus knows."""
    validation_ratio: float = Field(default=0.02, ge=0, lt=1)
    """Share of `train` that becomes the validation split; ignored where `validation` is given."""
    test_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of `train` that becomes the test split; ignored where `test` is given."""
    cleaning: tuple[str, ...] = Field(default=CLEANING_RULES, strict=False)
    """Names of the cleaning rules that drop pairs."""
    vocabulary_size: int = Field(default=6000, ge=400, le=1_000_000)
    """Pieces of a newly trained tokenizer, special tokens and 256 bytes included."""
    character_coverage: float = Field(default=0.998, ge=0.98, le=1)
    """Share of character occurrences that get a piece of their own (the range is SentencePiece's)."""

    @field_validator("extra", "validation", "test")
    @classmethod
    def _has_one_role(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for other in ("train", "extra", "validation"):
            if other != info.field_name and (twice := sorted({*value} & {*info.data.get(other, ())})):
                raise refusal(
                    twice[0], en=f"a corpus or file not in data.{other} too", zh=f"不同时出现在 data.{other} 中的语料"
                )
        return value

    @field_validator("source_lang", "target_lang")
    @classmethod
    def _is_language(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not _LANGUAGE_CODE.fullmatch(value):
            raise refusal(value, en="a language code such as zh or en", zh="语言代码，例如 zh 或 en")
        if info.field_name == "target_lang" and "source_lang" in info.data:
            source_lang = info.data["source_lang"]
            if value is None and source_lang is not None:
                raise refusal(
                    value,
                    en="a language code, because data.source_lang has one",
                    zh="语言代码，因为已给出 data.source_lang",
                )
            if value is not None and source_lang is None:
                raise refusal(
                    value, en="none, because data.source_lang is none", zh="none，因为没有给出 data.source_lang"
                )
            if value is not None and value == source_lang:
                raise refusal(value, en="a language other than data.source_lang", zh="与 data.source_lang 不同的语言")
        return value

    @field_validator("validation_ratio", "test_ratio")
    @classmethod
    def _leaves_every_split(cls, value: float, info: ValidationInfo) -> float:
        own_files = str(info.field_name).removesuffix("_ratio")
        if value == 0 and not info.data.get(own_files, True):
            raise refusal(
                value,
                en=f"more than 0, or files in data.{own_files}",
                zh=f"大于 0 的数，或在 data.{own_files} 中给出文件",
            )
        if info.field_name == "test_ratio" and value + info.data.get("validation_ratio", 0.0) >= 1:
            raise refusal(
                value,
                en="a number that makes less than 1 with data.validation_ratio",
                zh="与 data.validation_ratio 之和小于 1 的数",
            )
        return value

    @field_validator("cleaning")
    @classmethod
    def _are_rules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if name not in CLEANING_RULES]:
            known = listed(CLEANING_RULES)
            raise refusal(unknown[0], en=f"names out of {known}", zh=f"{known} 中的规则名称")
        return value
