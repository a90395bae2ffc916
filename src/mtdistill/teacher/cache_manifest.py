"""What a cache of teacher states says of itself: its manifest, whether its files are still those, and its removal.

Imported by cli, distillation and teacher.state_cache.
"""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import NonNegativeInt, PositiveInt, StringConstraints, TypeAdapter

from mtdistill.errors import CacheError
from mtdistill.files import changed_files
from mtdistill.messages import tr

MANIFEST, STARTS = "manifest.json", "starts.npy"
# No name with a folder in it: what a manifest names is deleted where it is damaged.
_ArrayName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+\.npy$")]


@dataclass(frozen=True)
class CacheManifest:
    """What a cache is, and what it depends on (`parts`, by name)."""

    identity: str
    tokens: NonNegativeInt
    rows: NonNegativeInt
    width: PositiveInt
    parts: Mapping[str, Any]
    sha256: Mapping[_ArrayName, str]

    @property
    def mib(self) -> float:
        """Size of the states."""
        return self.tokens * self.width * 2 / 2**20


_MANIFEST = TypeAdapter(CacheManifest)


def read_manifest(folder: Path) -> CacheManifest:
    """What a cache says of itself.

    Raises:
        CacheError: no whole cache there.
    """
    try:
        manifest = _MANIFEST.validate_json((folder / MANIFEST).read_bytes(), strict=True)
        if missing := {"teacher", "max_sequence_length"} - manifest.parts.keys():
            raise ValueError(f"parts: {missing}")
        return manifest
    except (OSError, ValueError) as error:
        raise CacheError(
            tr(
                en=f"no whole cache of teacher states: got {folder} ({type(error).__name__}), accepted a folder with "
                f"{MANIFEST}. Finish it with: mtdistill cache build",
                zh=f"不是完整的教师状态缓存：{folder}（{type(error).__name__}），应为含有 {MANIFEST} 的文件夹。"
                "请用以下命令完成：mtdistill cache build",
            )
        ) from error


def verify_cache(folder: Path) -> CacheManifest:
    """Compare every file with its checksum.

    Raises:
        CacheError: a file is missing or has changed; the message names it.
    """
    manifest = read_manifest(folder)
    if changed := changed_files(folder, manifest.sha256):
        raise damaged(folder, ", ".join(changed))
    return manifest


def drop_damaged(folder: Path) -> list[str]:
    """Delete what differs from its checksum, so that `build_cache` computes it again.

    Returns:
        The names of these files; none where there is no whole cache.
    """
    if not (folder / MANIFEST).is_file():
        return []
    try:
        changed = changed_files(folder, read_manifest(folder).sha256)
    except CacheError:  # the manifest itself cannot be read: nothing in the folder can be relied on
        changed = [path.name for path in sorted(folder.glob("*.npy"))]
        (folder / MANIFEST).unlink()
    if changed:
        (folder / MANIFEST).unlink(missing_ok=True)
    for name in changed:
        with contextlib.suppress(OSError):  # a folder of that name; said when the file is to be written
            (folder / name).unlink(missing_ok=True)
    return changed


def remove_cache(folder: Path) -> None:
    """Delete a cache, whole or not; nothing else is ever in its folder.

    Raises:
        CacheError: the folder does not look like a cache.
    """
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    known = {name for name in inside if name in (MANIFEST, STARTS) or name.startswith(("states-", "."))}
    if not inside or inside != known or STARTS not in inside:
        raise CacheError(
            tr(
                en=f"this is no cache of teacher states: got {folder}. Nothing was deleted.",
                zh=f"这不是教师状态缓存：{folder}。没有删除任何内容。",
            )
        )
    shutil.rmtree(folder)


def damaged(folder: Path, detail: str) -> CacheError:
    """The error for a cache with a file that is not as it was written."""
    return CacheError(
        tr(
            en=f"the cache of teacher states is damaged: {folder} ({detail}). Remove it, and it will be built again: "
            f"mtdistill cache remove {folder.name}",
            zh=f"教师状态缓存已损坏：{folder}（{detail}）。请删除它，之后会重新生成：mtdistill cache remove {folder.name}",
        )
    )
