"""How a value that was given and the values that are accepted are put into words.

Works on any pydantic field; knows no setting by name. Imported by cli and its neighbours.
"""

import types
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from mtdistill.messages import tr

_MAX_SHOWN = 60  # characters of a given value; enough to recognise it, and a message stays one line


def refusal(value: object, *, en: str, zh: str) -> ValueError:
    """What a check raises for a value; the name of the setting is put in front where all problems are collected."""
    return ValueError(tr(en=f"got {shown(value)}, accepted {en}", zh=f"得到 {shown(value)}，应为：{zh}"))


def shown(value: object) -> str:
    """A given value as the user may have written it, shortened.

    >>> shown(["a", 1]), shown(None), shown(True)
    ("['a', 1]", 'none', 'true')
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    try:
        text = repr(list(value) if isinstance(value, tuple) else value)
    except ValueError:  # Python does not print integers of more than 4300 digits
        return tr(en="a number of thousands of digits", zh="一个有数千位的数")
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def accepted(field: FieldInfo) -> str:
    """The values that a field takes: kind, bounds, and whether it can be left open."""
    kinds = _members(field.annotation)
    kind = " | ".join(_kind(kind) for kind in kinds if kind is not type(None))
    bounds = [bound for constraint in field.metadata for bound in _bounds(constraint)]
    text = " ".join([kind, tr(en=" and ", zh=" 且 ").join(bounds)]).strip()
    return text + tr(en=", or none", zh="，或 none") if type(None) in kinds else text


def takes_none(field: FieldInfo) -> bool:
    """True where None stands for "decide for me"."""
    return type(None) in _members(field.annotation)


def takes_only_text(field: FieldInfo) -> bool:
    """True where a value is one free text, so that what looks like a number or a date is text as well."""
    return str in _members(field.annotation)


def takes_a_list(field: FieldInfo) -> bool:
    """True where a value is a list, so that one bare word stands for a list of one."""
    return any(get_origin(kind) is tuple for kind in _members(field.annotation))


def takes_a_list_of_text(field: FieldInfo) -> bool:
    """True where such a word is taken as it stands, even one that reads as a number."""
    return any(get_origin(kind) is tuple and get_args(kind)[0] is str for kind in _members(field.annotation))


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _kind(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(get_args(kind))
    if get_origin(kind) is tuple:
        if get_args(kind)[0] is int:
            return tr(en="a list of whole numbers such as [0, 2]", zh="整数列表，例如 [0, 2]")
        return tr(en='a list of texts such as ["a", "b"]', zh='文字列表，例如 ["a", "b"]')
    if kind is bool:
        return tr(en="true or false", zh="true 或 false")
    if kind is int:
        return tr(en="a whole number", zh="整数")
    if kind is float:
        return tr(en="a number", zh="数值")
    return tr(en="text", zh="文字") if kind is str else tr(en="a section", zh="一个小节")


def _bounds(constraint: object) -> list[str]:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    if hasattr(constraint, "min_length"):
        return [tr(en="that is not empty", zh="（不能为空）")]
    return [f"{sign} {getattr(constraint, name)}" for name, sign in signs.items() if hasattr(constraint, name)]
