import pytest

from mtdistill.data.languages import find_columns, find_languages


@pytest.mark.parametrize(
    ("labels", "languages", "expected"),
    [
        (["zh", "en"], ("zh", "en"), ("zh", "en")),
        (["en", "zh"], ("zh", "en"), ("zh", "en")),
        (["EN-us", "ZH_Hans"], ("zh", "en"), ("ZH_Hans", "EN-us")),
        (["zh-TW", "zh", "en"], ("zh", "en"), ("zh", "en")),
        (["zh-TW", "zh-CN", "en"], ("zh", "en"), ("zh-TW", "en")),
        (["zh-TW", "zh-CN", "en"], ("zh_cn", "en"), ("zh-CN", "en")),
        (["zh-TW", "zh-CN"], ("zh-CN", "zh-TW"), ("zh-CN", "zh-TW")),
        (["zh-TW"], ("zh-CN", "zh-TW"), None),
        (["zh-TW", "zh-HK"], ("zh-CN", "zh-TW"), ("zh-HK", "zh-TW")),
        (["zh"], ("zh-CN", "zh-TW"), None),
        (["zh", "fr"], ("zh", "en"), None),
        ([], ("zh", "en"), None),
    ],
)
def test_labels_of_two_languages(
    labels: list[str], languages: tuple[str, str], expected: tuple[str, str] | None
) -> None:
    assert find_languages(labels, *languages) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([" Target", "SOURCE"], ("SOURCE", " Target")),
        (["source", "en", "zh"], ("zh", "en")),  # "source" alone says where a sentence was found
        (["source", "english"], None),
    ],
)
def test_columns_may_be_called_source_and_target(labels: list[str], expected: tuple[str, str] | None) -> None:
    assert find_columns(labels, "zh", "en") == expected
