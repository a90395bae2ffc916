"""Which pieces of the vocabulary the objective looks at in an update: all that a target may have, and some of the others.

A joint vocabulary holds two languages. Of the reference teacher's 6,000 pieces 3,569 are Chinese, which no English
target has; to tell a student so in every update costs as much time as all that it has to learn about the others. So
they take turns. Imported by its neighbours; imports data and teacher.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import datasets
import numpy as np
import torch
from torch import Tensor

from mtdistill.data.prepared import PreparedData
from mtdistill.teacher.loading import Teacher
from mtdistill.text import written_only_in

MULTIPLE = 32  # rows that end where a vector register does are multiplied up to 1.7 times as fast (docs/experiments.md)


class Pieces(NamedTuple):
    """Some of the vocabulary.

    Attributes:
        ids: (pieces,) int64, ascending.
        places: (vocabulary,) int64, where each id is among them; -1: nowhere.
    """

    ids: Tensor
    places: Tensor


class PiecesByTurns:
    """A vocabulary part of which is looked at in one of every so many updates only.

    Args:
        vocabulary: how many pieces there are, > 0.
        others: ids of those that take turns, ascending.
        every: in how many updates each of them has a turn, >= 1. Some have two, for all updates to look at the same
            multiple of `MULTIPLE` pieces.
    """

    def __init__(self, vocabulary: int, others: Sequence[int], every: int) -> None:
        fewest = vocabulary - len(others) + -(-len(others) // every)
        left_out = max(0, vocabulary - -(-fewest // MULTIPLE) * MULTIPLE)
        # Neighbours in a vocabulary are alike in frequency, so every turn has as many frequent ones as the next.
        shares = [others[turn::every] for turn in range(every)]
        self._turns = []
        for turn in range(every):
            by_turn = [*chain(*shares[turn:], *shares[:turn])]  # those whose turn it is, and the next ones after them
            self._turns.append(_without(vocabulary, by_turn[len(by_turn) - left_out :]))

    def at(self, update: int) -> Pieces:
        """Those of an update, >= 0."""
        return self._turns[update % len(self._turns)]


def pieces_by_turns(teacher: Teacher, data: PreparedData, rows: datasets.Dataset, every: int) -> PiecesByTurns | None:
    """Those that no target has take turns, if a source has them or only its language is written so; None: there are none.

    Others that no target has are words that the training text happens not to have, and the student may need them.

    Args:
        teacher: has the tokenizer.
        data: has the languages.
        rows: everything that is trained on.
        every: see `PiecesByTurns`; with 1 all have their turn in every update.
    """
    if every == 1:
        return None
    tokenizer = teacher.tokenizer
    columns = rows.with_format("arrow")[:]
    read, written = (
        set(np.unique(columns[name].combine_chunks().flatten().to_numpy()).tolist())
        for name in ("source_ids", "target_ids")
    )
    others = [
        piece
        for piece, name in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))
        if piece not in written and (piece in read or written_only_in(name, data.source_lang, data.target_lang))
    ]
    return PiecesByTurns(teacher.model.config.vocab_size, others, every) if others else None


def _without(vocabulary: int, others: Sequence[int]) -> Pieces:
    kept = torch.ones(vocabulary, dtype=torch.bool)
    kept[torch.tensor(others, dtype=torch.int64)] = False
    ids = kept.nonzero().flatten()
    places = torch.full((vocabulary,), -1)
    places[ids] = torch.arange(len(ids))
    return Pieces(ids, places)
