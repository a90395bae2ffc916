"""Stored states train like live ones, belong to exactly one teacher and one data set, and survive what goes wrong."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from mtdistill.data.batches import PackedBatch, PackedRows
from mtdistill.data.prepared import PreparedData
from mtdistill.errors import CacheError
from mtdistill.files import write_atomically
from mtdistill.teacher import state_cache as module
from mtdistill.teacher.cache_manifest import drop_damaged, read_manifest, remove_cache, verify_cache
from mtdistill.teacher.state_cache import CachedTargets, build_cache, cache_bytes, cache_folder, cache_parts
from mtdistill.teacher.targets import LiveTargets, TargetSource
from mtdistill.training.engine import Workers
from mtdistill.training.fused_loss import fused_loss

LIMIT = 32
SHARDS = ["states-00000.npy", "states-00001.npy", "states-00002.npy", "states-00003.npy"]
FILES = ["starts.npy", *SHARDS]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four shards, the last one short, of several batches each."""
    monkeypatch.setattr(module, "SHARD_ROWS", 50)
    monkeypatch.setattr(module, "_BATCH_ROWS", 20)


class Watched:
    """A live teacher that remembers the rows it was asked for, and may be interrupted."""

    def __init__(self, teacher: T5ForConditionalGeneration, stop_before_batch: int | None = None) -> None:
        self.live, self.stop_before_batch, self.batches = LiveTargets(teacher), stop_before_batch, 0
        self.head, self.rows = self.live.head, list[int]()

    def states(self, batch: PackedBatch) -> Tensor:
        if self.batches == self.stop_before_batch:
            raise KeyboardInterrupt
        self.batches += 1
        self.rows += batch.rows.tolist()
        return self.live.states(batch)


@dataclass
class Setting:
    """A teacher, 160 rows, and where their cache goes."""

    teacher: T5ForConditionalGeneration
    rows: datasets.Dataset
    root: Path
    limit: int = LIMIT
    workers: int = 2

    @property
    def parts(self) -> dict[str, Any]:
        return cache_parts(self.teacher, self.rows, self.limit, "float32")

    @property
    def folder(self) -> Path:
        return cache_folder(self.root, self.parts)

    def build(self, source: TargetSource | None = None, **options: Any) -> CachedTargets:
        with closing(Workers(self.workers, 1)) as workers:
            return build_cache(
                self.folder, self.parts, self.rows, source or LiveTargets(self.teacher), workers, **options
            )

    def batch(self, rows: Sequence[int]) -> PackedBatch:
        return PackedRows(self.rows, self.limit).batch(list(rows))


@pytest.fixture
def setting(tiny_teacher: Any, tiny_data: PreparedData, tmp_path: Path) -> Setting:
    return Setting(tiny_teacher[0], tiny_data.split("train").select(range(160)), tmp_path / "cache")


def assert_like_live(setting: Setting, cached: CachedTargets, rows: Sequence[int]) -> None:
    batch = setting.batch(rows)
    live = LiveTargets(setting.teacher).states(batch)
    # float16 has 11 bits, and the live teacher saw other sentences beside these.
    torch.testing.assert_close(cached.states(batch), live, rtol=2**-10, atol=1e-5)


class TestStates:
    @pytest.mark.parametrize("limit", [LIMIT, 5])
    def test_they_are_those_of_the_live_teacher_in_any_order(self, setting: Setting, limit: int) -> None:
        setting.limit = limit
        cached = setting.build()
        random = torch.randperm(160, generator=torch.Generator().manual_seed(0)).tolist()
        for rows in (range(160), range(159, -1, -1), random, [49, 50, 51], [159], [7, 120, 7]):
            assert_like_live(setting, cached, rows)

    def test_they_do_not_depend_on_how_many_work_on_them(self, setting: Setting, tmp_path: Path) -> None:
        one, three = (Setting(setting.teacher, setting.rows, tmp_path / str(count), workers=count) for count in (1, 3))
        batch = setting.batch(range(160))
        assert torch.equal(one.build().states(batch), three.build().states(batch))

    def test_they_have_the_type_of_the_head(self, setting: Setting) -> None:
        setting.build()
        batch = setting.batch([3, 155])
        for dtype in (torch.float32, torch.bfloat16):
            states = CachedTargets(setting.folder, LiveTargets(setting.teacher).head.to(dtype)).states(batch)
            assert states.dtype == dtype
            assert states.shape == (len(batch.labels), 16)

    @pytest.mark.parametrize("temperature", [1.0, 3.0])
    def test_losses_and_gradients_are_those_of_live_states(self, setting: Setting, temperature: float) -> None:
        cached, live = setting.build(), LiveTargets(setting.teacher)
        batch = setting.batch(range(40, 110))
        generator = torch.Generator().manual_seed(3)
        student = torch.randn(len(batch.labels), 16, generator=generator).requires_grad_()
        head = torch.randn(400, 16, generator=generator).requires_grad_()
        results = []
        for targets in (live, cached):
            loss = fused_loss(student, head, batch.labels, targets.states(batch), targets.head, alpha=0.7, beta=0.3,
                              temperature=temperature)  # fmt: skip
            results.append((loss, torch.autograd.grad(loss.total, (student, head))))
        (expected, wanted), (found, gradients) = results
        assert [value.item() for value in found] == pytest.approx([value.item() for value in expected], rel=1e-3)
        assert expected.kd > 1
        for ours, theirs in zip(gradients, wanted, strict=True):
            assert (ours - theirs).norm() < 1e-3 * theirs.norm()

    def test_a_selection_of_rows_in_another_order(self, setting: Setting) -> None:
        order = torch.randperm(160, generator=torch.Generator().manual_seed(1))[:130].tolist()
        whole, setting.rows = setting.rows, setting.rows.select(order)
        assert setting.rows._indices is not None
        cached = setting.build()
        assert_like_live(setting, cached, range(130))
        ours = cached.states(setting.batch([4]))
        first = PackedRows(whole, LIMIT).batch([order[4]])
        torch.testing.assert_close(ours, LiveTargets(setting.teacher).states(first), rtol=2**-10, atol=1e-5)

    def test_the_disk_that_is_announced_is_the_disk_that_is_taken(self, setting: Setting) -> None:
        cached = setting.build()
        taken = sum((setting.folder / name).stat().st_size - 128 for name in SHARDS)  # each with a header
        assert cache_bytes(setting.rows, LIMIT, 16) == taken
        assert cached.manifest.mib == pytest.approx(taken / 2**20)


class TestIdentity:
    def test_the_same_things_have_the_same_one(self, setting: Setting) -> None:
        assert setting.parts == setting.parts
        assert setting.folder.parent == setting.root
        assert setting.build().manifest.identity == setting.folder.name

    def test_whatever_the_states_depend_on_changes_it(self, setting: Setting) -> None:
        rows = setting.rows
        order = [1, 0, *range(2, 160)]
        changed = rows.to_list()
        changed[77]["target_ids"][0] += 1
        moved = rows.to_list()  # the same tokens with another boundary between two sentences
        moved[8]["target_ids"].append(moved[9]["target_ids"].pop(0))
        columns = {
            "first": rows, "order": rows.select(order), "fewer": rows.select(range(159)),
            "token": datasets.Dataset.from_list(changed, rows.features),
            "boundary": datasets.Dataset.from_list(moved, rows.features),
        }  # fmt: skip
        folders = {name: cache_folder(setting.root, cache_parts(setting.teacher, table, LIMIT, "float32"))
                   for name, table in columns.items()}  # fmt: skip
        folders["limit"] = cache_folder(setting.root, cache_parts(setting.teacher, rows, LIMIT - 1, "float32"))
        folders["precision"] = cache_folder(setting.root, cache_parts(setting.teacher, rows, LIMIT, "bfloat16"))
        with torch.no_grad():
            setting.teacher.decoder.block[1].layer[2].DenseReluDense.wo.weight[0, 0] += 1e-3
        folders["teacher"] = setting.folder
        for name, value in (("layer_norm_epsilon", 1e-3), ("relative_attention_max_distance", 9), ("num_heads", 1)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(setting.teacher.config, name, value)
                folders[name] = setting.folder
        assert len({*folders.values()}) == len(folders)

    def test_the_layout_of_the_table_does_not(self, setting: Setting) -> None:
        expected = setting.folder
        setting.rows = datasets.Dataset.from_list(setting.rows.to_list(), setting.rows.features)
        assert setting.folder == expected
        twice = datasets.concatenate_datasets([setting.rows, setting.rows])
        setting.rows = twice.select([*range(160, 200), *range(40, 160)])
        assert setting.folder == expected

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("format", 0), ("teacher", "f" * 64), ("data", "0" * 64), ("rows", 161), ("max_sequence_length", 31),
            ("stored_as", "bfloat16"), ("computed_in", "bfloat16"), ("something_new", 1),
        ],
    )  # fmt: skip
    def test_a_cache_of_something_else_is_refused_and_says_what_differs(
        self, setting: Setting, name: str, value: Any
    ) -> None:
        head = setting.build().head
        wanted = {**setting.parts, name: value}
        with pytest.raises(CacheError, match=rf"something else: {name} is .*{value!r}\. Build another") as refused:
            CachedTargets(setting.folder, head, wanted)
        assert str(setting.folder) in str(refused.value)
        with closing(Workers(1, 1)) as workers, pytest.raises(CacheError, match=f"something else: {name} is"):
            build_cache(setting.folder, wanted, setting.rows, LiveTargets(setting.teacher), workers)
        assert CachedTargets(setting.folder, head, setting.parts).manifest.rows == 160

    def test_every_part_is_tried_above(self, setting: Setting) -> None:
        names = {"format", "teacher", "data", "rows", "max_sequence_length", "stored_as", "computed_in"}
        assert {*setting.parts} == names


class TestBuilding:
    def test_a_whole_cache_is_not_computed_again(self, setting: Setting) -> None:
        setting.build()
        source = Watched(setting.teacher)
        assert_like_live(setting, setting.build(source), range(160))
        assert source.rows == []

    def test_a_large_cache_has_large_shards(self, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_SHARDS", 2)
        assert_like_live(setting, setting.build(), range(160))
        assert len(list(setting.folder.glob("states-*.npy"))) == 2

    def test_every_row_is_computed_once_and_progress_goes_up_to_all(self, setting: Setting) -> None:
        source, steps = Watched(setting.teacher), list[tuple[int, int]]()
        setting.build(source, progress=lambda done, total: steps.append((done, total)))
        assert sorted(source.rows) == list(range(160))
        assert steps == sorted(steps)
        assert steps[-1] == (160, 160)
        assert {total for _, total in steps} == {160}
        assert sorted(path.name for path in setting.folder.iterdir()) == sorted([*FILES, "manifest.json"])

    @pytest.mark.parametrize(("batches", "shards_done"), [(0, 0), (2, 0), (3, 1), (5, 1), (9, 3), (10, 4)])
    def test_an_interrupted_build_goes_on_where_it_stopped(
        self, setting: Setting, batches: int, shards_done: int
    ) -> None:
        if shards_done < 4:
            with pytest.raises(KeyboardInterrupt):
                setting.build(Watched(setting.teacher, stop_before_batch=batches))
        else:
            setting.build()
            (setting.folder / "manifest.json").unlink()
        assert sorted(path.name for path in setting.folder.glob("states-*")) == SHARDS[:shards_done]
        with pytest.raises(
            CacheError, match=r"no whole cache .*manifest\.json\. Finish it with: mtdistill cache build"
        ):
            CachedTargets(setting.folder, LiveTargets(setting.teacher).head)
        rest = Watched(setting.teacher)
        resumed = setting.build(rest)
        assert sorted(rest.rows) == list(range(min(160, 50 * shards_done), 160))
        verify_cache(setting.folder)
        other = Setting(setting.teacher, setting.rows, setting.root / "other")
        assert other.build().manifest.sha256 == resumed.manifest.sha256
        assert_like_live(setting, resumed, range(160))

    @pytest.mark.parametrize(("writes", "kept"), [(0, 0), (1, 0), (3, 2), (5, 4)])
    def test_a_full_disk_says_so_and_keeps_what_is_done(
        self, setting: Setting, monkeypatch: pytest.MonkeyPatch, writes: int, kept: int
    ) -> None:
        written: list[Path] = []

        def write(path: Path, content: bytes | str) -> None:
            if len(written) == writes:
                raise OSError(28, "No space left on device")
            written.append(path)
            write_atomically(path, content)

        monkeypatch.setattr(module, "write_atomically", write)
        with pytest.raises(CacheError, match=r"could not be written: got .*No space left .*teacher\.targets=live"):
            setting.build()
        assert sorted(path.name for path in setting.folder.glob("states-*")) == SHARDS[:kept]
        monkeypatch.setattr(module, "write_atomically", write_atomically)
        rest = Watched(setting.teacher)
        assert_like_live(setting, setting.build(rest), range(160))
        assert sorted(rest.rows) == list(range(min(160, 50 * kept), 160))

    def test_a_folder_that_cannot_be_made(self, setting: Setting) -> None:
        setting.root.write_text("in the way", encoding="utf-8")
        with pytest.raises(CacheError, match="could not be written"):
            setting.build()


class TestDamage:
    @pytest.mark.parametrize("name", FILES)
    def test_a_flipped_bit_is_found_and_named(self, setting: Setting, name: str) -> None:
        setting.build()
        assert verify_cache(setting.folder) == read_manifest(setting.folder)
        path = setting.folder / name
        content = bytearray(path.read_bytes())
        content[-3] ^= 4
        path.write_bytes(content)
        with pytest.raises(CacheError, match=rf"damaged: .*\({name}\).*mtdistill cache remove {setting.folder.name}"):
            verify_cache(setting.folder)

    @pytest.mark.parametrize("cut", [1, 32, 10_000_000])
    @pytest.mark.parametrize("name", FILES)
    def test_a_truncated_file_is_refused_when_it_is_opened(self, setting: Setting, name: str, cut: int) -> None:
        head = setting.build().head
        path = setting.folder / name
        path.write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(CacheError, match="damaged"):
            CachedTargets(setting.folder, head)
        with pytest.raises(CacheError, match=rf"\({name}\)"):
            verify_cache(setting.folder)

    @pytest.mark.parametrize("shape", ["(10000000000000000000000000,)", "(-1,)", "(160, 10)", "[]", "None"])
    def test_a_header_that_claims_another_size(self, setting: Setting, shape: str) -> None:
        head = setting.build().head
        path = setting.folder / "starts.npy"
        header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        path.write_bytes(b"\x93NUMPY\x01\x00v\x00" + header.encode() + path.read_bytes()[128:])
        with pytest.raises(CacheError, match=r"damaged: .*starts\.npy"):
            CachedTargets(setting.folder, head)

    def test_starts_that_go_down_where_a_difference_overflows(self, setting: Setting) -> None:
        head = setting.build().head
        starts = np.load(setting.folder / "starts.npy")
        starts[1:4] = 2**62, 2**63 - 1, -(2**63)
        starts[4:9] = -(2**62), -5, -4, -3, -2
        np.save(setting.folder / "starts.npy", starts)
        with pytest.raises(CacheError, match=r"damaged: .*starts\.npy"):
            CachedTargets(setting.folder, head)

    def test_rows_of_other_lengths_than_those_of_the_data(self, setting: Setting) -> None:
        cached = setting.build()
        starts = np.load(setting.folder / "starts.npy")
        starts[7] += 1
        np.save(setting.folder / "starts.npy", starts)
        longer = CachedTargets(setting.folder, cached.head)
        with pytest.raises(CacheError, match=r"damaged: .*starts\.npy"):
            longer.states(setting.batch([3, 6, 9]))

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file(self, setting: Setting, name: str) -> None:
        head = setting.build().head
        (setting.folder / name).unlink()
        with pytest.raises(CacheError, match="damaged"):
            CachedTargets(setting.folder, head)
        with pytest.raises(CacheError, match=rf"\({name}\)"):
            verify_cache(setting.folder)

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"identity": "a"}', "null"])
    def test_a_manifest_that_is_none(self, setting: Setting, content: str) -> None:
        setting.build()
        (setting.folder / "manifest.json").write_text(content, encoding="utf-8")
        for read in (read_manifest, verify_cache):
            with pytest.raises(CacheError, match="no whole cache"):
                read(setting.folder)

    def test_no_folder_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(CacheError, match="no whole cache"):
            read_manifest(tmp_path / "nowhere")

    def test_the_manifest_says_what_is_there(self, setting: Setting) -> None:
        manifest = setting.build().manifest
        stored = json.loads((setting.folder / "manifest.json").read_text(encoding="utf-8"))
        assert stored["parts"] == manifest.parts == setting.parts
        assert sorted(stored["sha256"]) == sorted(FILES)
        assert (manifest.rows, manifest.width) == (160, 16)
        assert manifest.tokens == sum(min(LIMIT, count) for count in setting.rows["target_tokens"])


class TestDropping:
    @pytest.mark.parametrize("name", SHARDS)
    @pytest.mark.parametrize("damage", ["changed", "cut short", "missing"])
    def test_a_shard_that_is_not_as_written_is_named_deleted_and_built_again(
        self, setting: Setting, name: str, damage: str
    ) -> None:
        whole = setting.build().manifest
        path = setting.folder / name
        content = bytearray(path.read_bytes())
        content[-3] ^= 4
        path.unlink()
        if damage != "missing":
            path.write_bytes(content if damage == "changed" else content[:-100])
        kept = {other: (setting.folder / other).stat().st_mtime_ns for other in FILES if other != name}
        assert drop_damaged(setting.folder) == [name]
        assert {other.name for other in setting.folder.iterdir()} == {*FILES} - {name}
        rebuilding = Watched(setting.teacher)
        rebuilt = setting.build(rebuilding)
        first = 50 * SHARDS.index(name)
        assert sorted(rebuilding.rows) == list(range(first, min(first + 50, 160)))
        assert rebuilt.manifest == whole == verify_cache(setting.folder)
        shards = {other: seen for other, seen in kept.items() if other in SHARDS}
        assert shards == {other: (setting.folder / other).stat().st_mtime_ns for other in shards}

    def test_a_whole_cache_is_untouched(self, setting: Setting) -> None:
        setting.build()
        before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in setting.folder.iterdir()}
        assert drop_damaged(setting.folder) == []
        assert before == {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in setting.folder.iterdir()}

    @pytest.mark.parametrize("content", ["", "{", "null", '{"identity": "a"}'])
    def test_an_unreadable_manifest_drops_everything(self, setting: Setting, content: str) -> None:
        setting.build()
        (setting.folder / "manifest.json").write_text(content, encoding="utf-8")
        assert drop_damaged(setting.folder) == sorted(FILES)
        assert list(setting.folder.iterdir()) == []
        rebuilding = Watched(setting.teacher)
        setting.build(rebuilding)
        assert sorted(rebuilding.rows) == list(range(160))

    @pytest.mark.parametrize("name", ["../outside.npy", "/outside.npy", "sub/x.npy", "..", "thesis.txt"])
    def test_a_manifest_that_names_other_files_deletes_none_of_them(self, setting: Setting, name: str) -> None:
        setting.build()
        outside = [setting.root / "outside.npy", setting.folder / "sub" / "x.npy", setting.folder / "thesis.txt"]
        for path in outside:
            path.parent.mkdir(exist_ok=True)
            path.write_text("dear", encoding="utf-8")
        manifest = json.loads((setting.folder / "manifest.json").read_text(encoding="utf-8"))
        manifest["sha256"][name] = "0" * 64
        (setting.folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        drop_damaged(setting.folder)
        assert all(path.is_file() for path in outside)

    def test_an_unfinished_cache_is_left_to_be_finished(self, setting: Setting) -> None:
        with pytest.raises(KeyboardInterrupt):
            setting.build(Watched(setting.teacher, stop_before_batch=5))
        before = sorted(path.name for path in setting.folder.iterdir())
        assert drop_damaged(setting.folder) == []
        assert sorted(path.name for path in setting.folder.iterdir()) == before


class TestRemoving:
    def test_a_cache_is_deleted(self, setting: Setting) -> None:
        setting.build()
        remove_cache(setting.folder)
        assert not setting.folder.exists()
        assert setting.root.is_dir()

    def test_half_a_cache_and_one_that_was_being_written(self, setting: Setting) -> None:
        with pytest.raises(KeyboardInterrupt):
            setting.build(Watched(setting.teacher, stop_before_batch=4))
        (setting.folder / ".states-00001.npy.abc.part").write_bytes(b"half")
        remove_cache(setting.folder)
        assert not setting.folder.exists()

    @pytest.mark.parametrize("name", ["thesis.txt", "states", "sub"])
    def test_something_else_in_the_folder_saves_it(self, setting: Setting, name: str) -> None:
        setting.build()
        if name == "sub":
            (setting.folder / name).mkdir()
        else:
            (setting.folder / name).write_text("dear", encoding="utf-8")
        with pytest.raises(CacheError, match=r"no cache of teacher states: got .*Nothing was deleted"):
            remove_cache(setting.folder)
        assert {path.name for path in setting.folder.iterdir()} == {*FILES, "manifest.json", name}

    @pytest.mark.parametrize("files", [None, [], ["manifest.json"], [".hidden"], ["states-of-america.txt"]])
    def test_a_folder_that_is_no_cache(self, tmp_path: Path, files: list[str] | None) -> None:
        folder = tmp_path / "folder"
        if files is not None:
            folder.mkdir()
        for name in files or []:
            (folder / name).write_text("{}", encoding="utf-8")
        with pytest.raises(CacheError, match="Nothing was deleted"):
            remove_cache(folder)
        assert folder.is_dir() == (files is not None)
        assert files is None or {path.name for path in folder.iterdir()} == {*files}

    def test_the_folder_of_all_caches_is_none(self, setting: Setting) -> None:
        setting.build()
        with pytest.raises(CacheError):
            remove_cache(setting.root)
        verify_cache(setting.folder)
