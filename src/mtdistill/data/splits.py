"""Train, validation and test splits in which no sentence stands on both sides.

Pairs that share a source or a target (letters and digits compared, case folded) hang together; every connected
component goes to one split, chosen by a hash of its text. The split of a pair therefore depends on nothing but the
text: shuffling files or another seed never moves a sentence from test to training, and neither does more text, unless
it shares a sentence with it. Only 64-bit hashes of sentences are held in memory: 16 bytes a pair, and about 100 bytes
a pair while components are found.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mtdistill.data.cleaning import Pair
from mtdistill.text import match_key

SPLITS = ("train", "validation", "test")
# A component this large is a hub of very common short sentences; in a held-out split it would dominate the score.
MAX_HELD_OUT_COMPONENT = 40

Keys = npt.NDArray[np.uint64]


def sentence_keys(pairs: Iterable[Pair]) -> Keys:
    """Hashes (pairs, 2) of what makes each source and each target the same sentence as another."""
    flat = np.fromiter((_key(side, text) for pair in pairs for side, text in enumerate(pair)), dtype=np.uint64)
    return flat.reshape(-1, 2)


def assign_splits(keys: Keys, validation_ratio: float, test_ratio: float) -> npt.NDArray[np.int8]:
    """Index into `SPLITS` of every pair.

    Args:
        keys: (pairs, 2), from `sentence_keys`.
        validation_ratio: expected share of components in validation, in [0, 1).
        test_ratio: expected share in test; the rest is training.
    """
    if len(keys) == 0:
        return np.zeros(0, dtype=np.int8)
    nodes, numbered = np.unique(keys, return_inverse=True)
    numbered = numbered.reshape(keys.shape)
    graph = coo_array((np.ones(len(keys), dtype=np.int8), (numbered[:, 0], numbered[:, 1])), shape=(len(nodes),) * 2)
    count, label = connected_components(graph, directed=False)
    component = label[numbered[:, 0]]
    smallest = np.full(count, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, component, keys[:, 0])
    position = _mixed(smallest) / 2.0**64
    split = np.where(position < test_ratio, 2, np.where(position < test_ratio + validation_ratio, 1, 0)).astype(np.int8)
    split[np.bincount(component, minlength=count) > MAX_HELD_OUT_COMPONENT] = 0
    of_pairs: npt.NDArray[np.int8] = split[component]
    return of_pairs


def shared_with(keys: Keys, held_out: Keys) -> npt.NDArray[np.bool_]:
    """For every pair, whether its source or its target also stands in the held-out pairs."""
    is_shared = np.isin(keys, held_out)
    either: npt.NDArray[np.bool_] = is_shared[:, 0] | is_shared[:, 1]
    return either


def _key(side: int, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{side}{match_key(text)}".encode(), digest_size=8).digest(), "big")


def _mixed(values: Keys) -> Keys:
    """SplitMix64 finaliser: the smallest of several hashes is no longer uniform, this makes it so again."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
