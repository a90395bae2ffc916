"""The setting `teacher.pseudo_targets`: which rows it adds, and what a second run pays for them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mtdistill.display import Display
from mtdistill.distillation import pseudo_rows as module
from mtdistill.distillation.forecast import forecast
from mtdistill.distillation.materials import Materials
from mtdistill.distillation.pseudo_rows import FOLDER, with_pseudo_targets
from mtdistill.distillation.pseudo_targets import make_pseudo_targets
from mtdistill.files import write_atomically

WANTED = "teacher.pseudo_targets=1"


@pytest.fixture
def rows(materials: Materials) -> Any:
    return materials.data.split("train").select(range(40))


def test_rows_stay_as_they_are_unless_it_is_set(make_run: Any, materials: Materials, rows: Any, tmp_path: Path) -> None:
    assert with_pseudo_targets(make_run(tmp_path), materials, rows, Display()) is rows
    assert list(tmp_path.iterdir()) == []


def test_translations_of_the_teacher_follow_the_gold_text(
    make_run: Any, materials: Materials, rows: Any, tmp_path: Path
) -> None:
    both = with_pseudo_targets(make_run(tmp_path, WANTED), materials, rows, Display())
    assert both.features == rows.features
    assert both.select(range(len(rows)))[:] == rows[:]
    gold = set(zip(rows["source"], rows["target"], strict=True))
    new = [(row["source"], row["target"]) for row in both.select(range(len(rows), len(both)))]
    assert 0 < len(new) <= len(set(rows["source"]))
    assert not gold & set(new)
    tokenizer = materials.teacher.tokenizer
    assert both[len(rows)]["target_ids"] == tokenizer(new[0][1])["input_ids"]
    make_pseudo_targets(make_run(tmp_path), tmp_path / "alone.jsonl")  # of all sources, these among them
    lines = (tmp_path / "alone.jsonl").read_text(encoding="utf-8").splitlines()
    alone = {(row["source"], row["target"]) for row in map(json.loads, lines)}
    assert len(set(new) - alone) <= len(new) / 10  # other batches round otherwise


def test_a_held_out_sentence_is_no_target(
    make_run: Any, materials: Materials, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = materials.data.split("test")["target"][0]
    says = {rows[0]["source"]: held_out, rows[1]["source"]: "something new."}

    def write(_sentences: Any, _translator: Any, _lang: str, path: Path, *_: Any, **__: Any) -> str:
        lines = [json.dumps({"source": source, "target": target}) + "\n" for source, target in says.items()]
        write_atomically(path, "".join(lines))
        return ""

    monkeypatch.setattr(module, "write_pseudo_targets", write)
    screen = io.StringIO()
    both = with_pseudo_targets(make_run(tmp_path, WANTED), materials, rows, Display(Console(file=screen)))
    assert both["target"][len(rows) :] == ["something new."]
    assert "training on 1 translations of the teacher as well" in screen.getvalue()


def test_a_second_run_reads_what_the_first_has_made(
    make_run: Any, materials: Materials, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_run(tmp_path, WANTED)
    first = with_pseudo_targets(config, materials, rows, Display())
    monkeypatch.setattr(module, "write_pseudo_targets", lambda *_, **__: pytest.fail("translated again"))
    assert with_pseudo_targets(config, materials, rows, Display())[:] == first[:]
    with pytest.raises(pytest.fail.Exception):
        with_pseudo_targets(config, materials, rows.select(range(39)), Display())


@pytest.mark.parametrize("damaged", [b"\xff", b"{", b"[]\n", b'{"source": "x", "target": "y"}\n', b"null\n"])
def test_a_damaged_file_is_made_again(
    damaged: bytes, make_run: Any, materials: Materials, rows: Any, tmp_path: Path
) -> None:
    config = make_run(tmp_path, WANTED)
    first = with_pseudo_targets(config, materials, rows, Display())
    [path] = (tmp_path / FOLDER).glob("*.jsonl")
    path.write_bytes(path.read_bytes() + damaged)
    assert with_pseudo_targets(config, materials, rows, Display())[:] == first[:]


def test_several_translations_of_a_source_are_all_trained_on(
    make_run: Any, materials: Materials, rows: Any, tmp_path: Path
) -> None:
    gold = set(zip(rows["source"], rows["target"], strict=True))

    def added(wanted: int) -> list[tuple[str, str]]:
        config = make_run(tmp_path, f"teacher.pseudo_targets={wanted}")
        both = with_pseudo_targets(config, materials, rows, Display())
        return list(zip(both["source"], both["target"], strict=True))[len(rows) :]

    one, three, six = added(1), added(3), added(6)
    assert set(one) < set(three)  # six need a wider beam, which loses one now and then
    assert len(set(six)) == len(six) > 3 * len(one)
    assert not gold & set(six)
    assert len(list((tmp_path / FOLDER).glob("*.jsonl"))) == 3


def test_the_forecast_tells_how_many_translations_are_new(make_run: Any, materials: Materials, tmp_path: Path) -> None:
    plain, gold = forecast(make_run(tmp_path), materials), materials.data.split("train")
    disks = [plain.disk_mib]
    for wanted in (1, 3):
        config = make_run(tmp_path, f"teacher.pseudo_targets={wanted}")
        found = forecast(config, materials)
        both = with_pseudo_targets(config, materials, gold, Display())
        assert found.updates / plain.updates == pytest.approx(len(both) / len(gold), rel=0.1)
        disks.append(found.disk_mib)
    assert disks[0] < disks[1] < disks[2]  # minutes are of a clock


def test_taking_turns_makes_a_run_no_longer(make_run: Any, materials: Materials, tmp_path: Path) -> None:
    plain, turns = (
        forecast(make_run(tmp_path, "training.epochs=5", *settings), materials)
        for settings in ([], ["teacher.pseudo_targets=3", "teacher.pseudo_targets_take_turns=true"])
    )
    assert turns.updates == plain.updates
    assert turns.disk_mib > plain.disk_mib  # the states of all translations are stored all the same
