"""The five presets: one commented TOML file each, read as package data.

A file holds what a person needs to choose (``[about.en]``, ``[about.zh]``) and the settings of a `RunConfig`. Imported
by cli, distillation and mtdistill; imports config. Knows nothing of torch.
"""

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from mtdistill.config import RunConfig, build_config
from mtdistill.errors import ConfigError
from mtdistill.messages import listed, tr

PRESET_NAMES = ("quick", "conservative", "balanced", "aggressive", "quality")  # in the order of the menu, from 1
RECOMMENDED = "balanced"


@dataclass(frozen=True)
class Bilingual:
    """A text in both languages; as ``str`` it is the one of the user's language."""

    en: str
    zh: str

    def __str__(self) -> str:
        """The text in the user's language now."""
        return tr(en=self.en, zh=self.zh)


@dataclass(frozen=True)
class Preset:
    """A preset: its place in the menu (1 to 5), what it is for, and its settings."""

    name: str
    number: int
    title: Bilingual
    purpose: Bilingual
    pros: Bilingual
    cons: Bilingual
    when_to_use: Bilingual
    config: RunConfig


def load_presets() -> tuple[Preset, ...]:
    """All presets in the order of the menu."""
    return tuple(map(_read, PRESET_NAMES))


def load_preset(name: str) -> Preset:
    """The preset of this name or menu number.

    Args:
        name: one of `PRESET_NAMES`, or "1" to "5".

    Raises:
        ConfigError: there is no such preset; the message lists all and suggests the nearest name.
    """
    by_number = dict(enumerate(PRESET_NAMES, start=1))
    wanted = name.strip().lower()
    wanted = by_number[int(wanted)] if wanted in map(str, by_number) else wanted
    if wanted in PRESET_NAMES:
        return _read(wanted)
    near = difflib.get_close_matches(wanted, PRESET_NAMES, n=1)
    known = listed(f"{number} {each}" for number, each in by_number.items())
    hint = tr(en=f" Did you mean {near[0]}?", zh=f"是不是要选 {near[0]}？") if near else ""
    raise ConfigError(
        tr(
            en=f"no such preset: got {name!r}, accepted {known}. Choose one of them.{hint}",
            zh=f"没有这个预设：得到 {name!r}，可选 {known}。请选择其中之一。{hint}",
        )
    )


@cache
def _read(name: str) -> Preset:
    file = resources.files(__name__) / f"{name}.toml"
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    about = values.pop("about")
    texts = {key: Bilingual(en=text, zh=about["zh"][key]) for key, text in about["en"].items()}
    config = build_config({"preset": name, **values}, file.name)
    return Preset(name=name, number=PRESET_NAMES.index(name) + 1, config=config, **texts)
