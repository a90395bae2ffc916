import inspect
import re

import pytest

from mtdistill import errors

CLASSES = {
    name: each
    for name, each in vars(errors).items()
    if inspect.isclass(each) and issubclass(each, Exception) and not name.startswith("_")
}


def tree_of_docstring() -> dict[str, str | None]:
    """Parent by class name, read from the drawing; one level is four columns."""
    open_branches: list[str] = []
    parents: dict[str, str | None] = {}
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        drawn = re.fullmatch(r"(    (?:│   |    )*)(?:[├└]── )?([A-Z]\w+Error)(?: {2,}.*)?", line)
        if not drawn:
            continue
        depth = line.index(drawn[2]) // 4 - 1
        del open_branches[depth:]
        parents[drawn[2]] = open_branches[-1] if open_branches else None
        open_branches.append(drawn[2])
    return parents


def test_the_tree_names_every_class_and_no_other() -> None:
    assert tree_of_docstring().keys() == CLASSES.keys()
    assert len(CLASSES) > 1


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_hangs_where_the_tree_says(name: str) -> None:
    parent = tree_of_docstring()[name]
    assert CLASSES[name].__base__ is (CLASSES[parent] if parent else Exception)
    assert CLASSES[name].__doc__
