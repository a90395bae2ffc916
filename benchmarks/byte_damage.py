"""What can happen to the bytes of any file, whatever they mean.

Imported by mutations.py. Everything is drawn from the dice that are given.
"""

import random
import re
from collections.abc import Callable

ODD_NUMBERS = [0, 1, 2, 3, 127, 255, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1]


def _flip_bits(content: bytes, dice: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(dice.choice([1, 1, 1, 2, 8, 64])):
        changed[_near_text(content, dice)] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _near_text(content: bytes, dice: random.Random) -> int:
    """A place in a file; half of the time next to some text, which is where binary formats have their structure."""
    if dice.random() < 0.5:
        start = dice.randrange(len(content))
        if found := re.compile(rb"[ -~]{4,}").search(content, start):
            return min(max(found.end() + dice.randrange(-12, 24), 0), len(content) - 1)
    size = len(content)
    return dice.choice([dice.randrange(size), dice.randrange(min(size, 64)), size - 1 - dice.randrange(min(size, 200))])


def _overwrite(content: bytes, dice: random.Random) -> bytes:
    start, size = _near_text(content, dice), dice.choice([1, 4, 16, 256])
    return content[:start] + dice.choice([dice.randbytes(size), b"\0" * size, b"\xff" * size]) + content[start + size :]


def _insert(content: bytes, dice: random.Random) -> bytes:
    start, size = _near_text(content, dice), dice.choice([1, 3, 8, 100, 5000])
    return content[:start] + dice.choice([dice.randbytes(size), content[-size:], b"\0" * size]) + content[start:]


def _delete(content: bytes, dice: random.Random) -> bytes:
    start = _near_text(content, dice)
    return content[:start] + content[start + dice.choice([1, 2, 4, 64, 1000]) :]


def _cut_short(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.choice([0, 1, 8, len(content) - 1, len(content) // 2, dice.randrange(len(content) + 1)])]


def _blow_up(content: bytes, dice: random.Random) -> bytes:
    """A number made another one: digits in text, or 4 or 8 bytes."""
    digits = list(re.finditer(rb"\d+", content[: 2**16]))
    if digits and dice.random() < 0.5:
        found = dice.choice(digits)
        size = found.end() - found.start()
        other = dice.choice(
            [b"9" * size, b"0" * size, b"1" + b"0" * 12, b"-1", b"1e999", b"9" * 400, b"", b"18446744073709551615"]
        )
        return content[: found.start()] + other + content[found.end() :]
    start, size = _near_text(content, dice), dice.choice([1, 2, 4, 8])
    number = (dice.choice(ODD_NUMBERS) % (1 << 8 * size)).to_bytes(size, dice.choice(["little", "little", "big"]))
    return content[:start] + number + content[start + size :]


def _repeat(content: bytes, dice: random.Random) -> bytes:
    start = _near_text(content, dice)
    return content[:start] + content[start : start + dice.choice([10, 1000, len(content)])] * 2 + content[start:]


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flip_bits": _flip_bits, "flip_more_bits": _flip_bits, "overwrite": _overwrite, "insert": _insert, "delete": _delete,
    "cut_short": _cut_short, "blow_up": _blow_up, "blow_up_more": _blow_up, "repeat": _repeat,
}  # fmt: skip
