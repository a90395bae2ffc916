"""Whole or not there, whatever happens on the way."""

import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtdistill.files import (
    changed_files,
    checksums_of,
    clear_leftovers,
    replacing_folder,
    scratch_folder,
    sha256_of,
    write_atomically,
)


class PowerCut(BaseException):
    """Not an Exception, as KeyboardInterrupt is not."""


def cut_power(*_args: object, **_options: object) -> None:
    raise PowerCut


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class TestWriteAtomically:
    def test_text_is_utf8_and_folders_are_made(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder" / "a.txt"
        write_atomically(path, "你好\n")
        assert path.read_bytes() == b"\xe4\xbd\xa0\xe5\xa5\xbd\n"
        assert names_in(path.parent) == {"a.txt"}

    def test_bytes_are_replaced_as_they_are(self, tmp_path: Path) -> None:
        path = tmp_path / "a.bin"
        path.write_bytes(b"something longer than what follows")
        write_atomically(path, b"\x00\r\n\xff")
        assert path.read_bytes() == b"\x00\r\n\xff"

    def test_others_may_read_it(self, tmp_path: Path) -> None:
        write_atomically(tmp_path / "a", "")
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_a_crash_leaves_the_old_file_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        path = tmp_path / "a.txt"
        path.write_text("old")
        monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), cut_power)
        with pytest.raises(PowerCut):
            write_atomically(path, "new")
        assert path.read_text() == "old"
        assert names_in(tmp_path) == {"a.txt"}

    def test_the_content_is_on_disk_before_it_gets_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a.txt"
        flushed: list[tuple[int, bool]] = []
        monkeypatch.setattr(os, "fsync", lambda number: flushed.append((os.fstat(number).st_size, path.exists())))
        write_atomically(path, "four")
        assert flushed == [(4, False)]


class TestReplacingFolder:
    def test_a_new_folder_appears_at_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "runs" / "best"
        with replacing_folder(path) as fresh:
            (fresh / "sub").mkdir()
            (fresh / "sub" / "a.txt").write_text("1")
            (fresh / "sub" / "a.txt").chmod(0o600)
            assert fresh.parent == path.parent  # the same file system, so that renaming is possible
            assert not path.exists()
        assert (path / "sub" / "a.txt").read_text() == "1"
        assert names_in(path.parent) == {"best"}
        assert path.stat().st_mode & 0o777 == 0o755
        assert (path / "sub" / "a.txt").stat().st_mode & 0o777 == 0o644

    def test_nothing_of_the_old_folder_remains(self, tmp_path: Path) -> None:
        path = tmp_path / "best"
        path.mkdir()
        (path / "old.txt").write_text("old")
        with replacing_folder(path) as fresh:
            (fresh / "new.txt").write_text("new")
            assert names_in(path) == {"old.txt"}
        assert names_in(path) == {"new.txt"}
        assert names_in(tmp_path) == {"best"}

    def test_a_crash_while_writing_leaves_the_old_folder_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "best"
        path.mkdir()
        (path / "old.txt").write_text("old")

        def write() -> None:
            with replacing_folder(path) as fresh:
                (fresh / "new.txt").write_text("ne")
                raise PowerCut

        with pytest.raises(PowerCut):
            write()
        assert names_in(path) == {"old.txt"}
        assert names_in(tmp_path) == {"best"}

    @pytest.mark.parametrize("failing_rename", [1, 2])
    def test_a_failed_exchange_puts_the_old_folder_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_rename: int
    ) -> None:
        path = tmp_path / "best"
        path.mkdir()
        (path / "old.txt").write_text("old")
        renames = 0
        rename = Path.replace

        def fail_once(self: Path, target: Path) -> Path:
            nonlocal renames
            renames += 1
            if renames == failing_rename:
                raise PermissionError
            return rename(self, target)

        def write() -> None:
            with replacing_folder(path) as fresh:
                (fresh / "new.txt").write_text("new")

        monkeypatch.setattr(Path, "replace", fail_once)
        with pytest.raises(PermissionError):
            write()
        assert names_in(path) == {"old.txt"}
        assert names_in(tmp_path) == {"best"}

    def test_every_file_is_on_disk_before_the_exchange(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "best"
        flushed: list[tuple[int, bool]] = []
        monkeypatch.setattr(os, "fsync", lambda number: flushed.append((os.fstat(number).st_size, path.exists())))
        with replacing_folder(path) as fresh:
            (fresh / "sub").mkdir()
            (fresh / "a").write_text("1")
            (fresh / "sub" / "b").write_text("22")
        assert sorted(flushed) == [(1, False), (2, False)]


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_what_has_changed_since_the_checksums(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a", "b", "deep/c", "d"):
        (tmp_path / name).write_text(name)
    checksums = checksums_of(tmp_path, [tmp_path / name for name in ("deep/c", "b", "a")])
    assert list(checksums) == ["a", "b", "deep/c"]
    assert changed_files(tmp_path, checksums) == []
    (tmp_path / "b").unlink()
    (tmp_path / "deep" / "c").write_text("other")
    assert changed_files(tmp_path, checksums) == ["b", "deep/c"]
    assert changed_files(tmp_path / "deep", {"../a": checksums["a"], "c": None}) == ["../a", "c"]


KILLED_WHILE_WRITING = """
import os, sys
from pathlib import Path
from mtdistill.files import replacing_folder, write_atomically

folder = Path(sys.argv[1])
with replacing_folder(folder / "best") as fresh:
    (fresh / "weights").write_text("ha")
    os.fsync = lambda number: os._exit(9)
    write_atomically(folder / "a.txt", "ha")
"""


class TestScratchFolder:
    def test_it_goes_with_the_block(self, tmp_path: Path) -> None:
        with contextlib.suppress(PowerCut), scratch_folder(tmp_path) as folder:
            (folder / "a.txt").write_text("half")
            cut_power()
        assert names_in(tmp_path) == set()

    def test_a_parent_that_cannot_be_written_any_more(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: object, **__: object) -> None:
            raise PermissionError

        with monkeypatch.context() as patched, scratch_folder(tmp_path):
            for name in ("unlink", "rmdir"):
                patched.setattr(os, name, refused)
            left = names_in(tmp_path)
        assert len(left) == 1
        clear_leftovers(tmp_path)
        assert names_in(tmp_path) == set()


class TestClearLeftovers:
    def test_what_a_killed_process_leaves(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("old")
        command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)]
        assert subprocess.run(command, check=False).returncode == 9
        assert len(names_in(tmp_path)) == 3
        clear_leftovers(tmp_path)
        assert names_in(tmp_path) == {"a.txt"}
        assert (tmp_path / "a.txt").read_text() == "old"

    def test_halves_go_and_everything_else_stays(self, tmp_path: Path) -> None:
        (tmp_path / ".a.txt.k3_9xyzq.part").write_text("ha")
        (tmp_path / ".best.abcdefgh.part").mkdir()
        (tmp_path / ".best.abcdefgh.part" / "weights").write_text("ha")
        kept = {"a.txt", ".a.txt", "part", ".lock", "b.abcdefgh.part"}
        for name in kept:
            (tmp_path / name).write_text("whole")
        clear_leftovers(tmp_path)
        assert names_in(tmp_path) == kept

    def test_only_those_of_a_name(self, tmp_path: Path) -> None:
        for name in (".a.abcdefgh.part", ".a.b.abcdefgh.part", ".b.abcdefgh.old"):
            (tmp_path / name).mkdir()
        clear_leftovers(tmp_path, "a")
        assert names_in(tmp_path) == {".a.b.abcdefgh.part", ".b.abcdefgh.old"}
        clear_leftovers(tmp_path, "b")
        assert names_in(tmp_path) == {".a.b.abcdefgh.part", "b"}

    def test_a_link_goes_and_what_it_points_to_stays(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / ".best.abcdefgh.part").symlink_to(tmp_path / "elsewhere")
        clear_leftovers(tmp_path)
        assert names_in(tmp_path) == {"elsewhere"}

    @pytest.mark.parametrize("there_is_a_new_one", [False, True])
    def test_the_folder_that_was_being_replaced_comes_back_unless_it_was(
        self, there_is_a_new_one: bool, tmp_path: Path
    ) -> None:
        path = tmp_path / "best"
        path.mkdir()
        (path / "a.txt").write_text("old")
        old = tmp_path / ".best.abcdefgh.old"
        path.rename(old)
        if there_is_a_new_one:
            path.mkdir()
        clear_leftovers(tmp_path)
        assert names_in(tmp_path) == {"best"}
        assert names_in(path) == (set() if there_is_a_new_one else {"a.txt"})

    def test_without_a_folder_there_is_nothing_to_do(self, tmp_path: Path) -> None:
        clear_leftovers(tmp_path / "gone")
