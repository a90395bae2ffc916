from collections import Counter
from typing import Any

import datasets
import pytest

from mtdistill.distillation.materials import Materials
from mtdistill.distillation.pieces import PiecesByTurns, pieces_by_turns
from mtdistill.text import written_only_in


@pytest.mark.parametrize("every", [2, 3, 8, 50])
def test_others_have_a_turn_and_the_rest_all(every: int) -> None:
    others = [*range(7, 600, 3)]
    pieces = PiecesByTurns(610, others, every)
    turns = [set(pieces.at(update).ids.tolist()) for update in range(every)]
    assert all(set(range(610)) - set(others) <= turn for turn in turns)
    counts = Counter(piece for turn in turns for piece in turn & set(others))
    assert sorted(counts) == others
    assert max(counts.values()) <= 1 + -(-32 * every // len(others))
    (size,) = {*map(len, turns)}
    assert size % 32 == 0
    assert size < 610 - len(others) + -(-len(others) // every) + 32
    assert pieces.at(every + 1) is pieces.at(1)


def test_few_others_leave_no_room_for_turns() -> None:
    assert PiecesByTurns(70, [3, 9], 2).at(1).ids.tolist() == [*range(70)]


def test_a_piece_is_found_at_its_place() -> None:
    ids, places = PiecesByTurns(34, [0, 4, 8], 3).at(1)
    assert ids.tolist() == [piece for piece in range(34) if piece not in (0, 8)]
    assert places[[0, 8]].tolist() == [-1, -1]
    assert places[ids].tolist() == [*range(32)]


def out_of_turn(pieces: PiecesByTurns | None, every: int, materials: Materials) -> set[int]:
    """Those that are not looked at in every update."""
    assert pieces
    always = set.intersection(*(set(pieces.at(update).ids.tolist()) for update in range(every)))
    return set(range(materials.teacher.model.config.vocab_size)) - always


def ids_of(rows: datasets.Dataset, side: str) -> set[int]:
    return {piece for ids in rows[f"{side}_ids"] for piece in ids}


def test_pieces_of_the_source_language_take_turns(materials: Materials) -> None:
    rows = materials.data.split("train")
    out = out_of_turn(pieces_by_turns(materials.teacher, materials.data, rows, 4), 4, materials)
    names = materials.teacher.tokenizer.convert_ids_to_tokens(list(range(len(materials.teacher.tokenizer))))
    chinese = {piece for piece, name in enumerate(names) if written_only_in(name, "zh", "en")}
    assert len(chinese) > 10
    assert chinese - ids_of(rows, "source")  # some stand in held-out sentences alone
    assert out == chinese | (ids_of(rows, "source") - ids_of(rows, "target"))
    assert not out & ids_of(rows, "target")


def test_a_piece_that_a_target_has_is_always_there(materials: Materials) -> None:
    rows = materials.data.split("train").select([0, 3, 5, 8])
    first = rows[2]["source_ids"][0]
    mixed = rows.map(lambda row: {**row, "target_ids": [first, *row["target_ids"]]})
    for trained_on, always in ((rows.select([3, 1]), False), (mixed, True)):
        pieces = pieces_by_turns(materials.teacher, materials.data, trained_on, 8)
        assert pieces
        assert all(bool((pieces.at(update).ids == first).any()) for update in range(8)) == always


def test_in_one_script_those_that_only_sources_have_take_turns(materials: Materials) -> None:
    class German:
        source_lang, target_lang = "de", "en"

    german: Any = German()
    rows = materials.data.split("train").select(range(100))
    out = out_of_turn(pieces_by_turns(materials.teacher, german, rows, 8), 8, materials)
    assert out == ids_of(rows, "source") - ids_of(rows, "target")
    assert len(out) > 10


def test_nothing_is_left_out_where_all_is_wanted_or_every_piece_is_written(materials: Materials) -> None:
    rows, teacher = materials.data.split("train").select(range(4)), materials.teacher
    assert pieces_by_turns(teacher, materials.data, rows, 1) is None
    everything = rows.map(lambda row: {**row, "target_ids": [*range(teacher.model.config.vocab_size)]})
    assert pieces_by_turns(teacher, materials.data, everything, 8) is None
