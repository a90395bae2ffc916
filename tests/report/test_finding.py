from collections.abc import Callable
from pathlib import Path

import pytest

from mtdistill.errors import DataError
from mtdistill.report import ReportCard
from mtdistill.report.finding import REPORT_FILE, find_card, read_cards

WriteCard = Callable[..., Path]


@pytest.fixture
def write_card(make_card: Callable[..., ReportCard], tmp_path: Path) -> WriteCard:
    """Writes a card below the test's folder, with a preset to know it by, and gives its folder."""

    def write(folder: str, preset: str = "quick", name: str = "report.json") -> Path:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(make_card(preset=preset).to_json(), encoding="utf-8")
        return tmp_path / folder

    return write


def presets(cards: dict[str, ReportCard]) -> dict[str, str | None]:
    return {name: card.preset for name, card in cards.items()}


class TestFindCard:
    def test_reads_that_of_a_folder(self, write_card: WriteCard, make_card: Callable[..., ReportCard]) -> None:
        assert find_card(write_card("run")) == make_card()

    def test_there_is_none_without_a_folder(self) -> None:
        assert find_card(None) is None

    @pytest.mark.parametrize("place", ["", "gone", "report.json"])
    def test_there_is_none_where_nothing_was_measured(self, place: str, tmp_path: Path) -> None:
        assert find_card(tmp_path / place) is None

    def test_a_folder_of_that_name_is_no_card(self, tmp_path: Path) -> None:
        (tmp_path / REPORT_FILE).mkdir()
        assert find_card(tmp_path) is None

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema_version": 1}'], ids=repr)
    def test_one_that_cannot_be_read_is_none(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / REPORT_FILE).write_bytes(content)
        assert find_card(tmp_path) is None

    def test_one_of_another_version_is_none(self, write_card: WriteCard) -> None:
        file = write_card("run") / REPORT_FILE
        file.write_text(file.read_text(encoding="utf-8").replace('"schema_version": 2', '"schema_version": 1'))
        assert find_card(file.parent) is None


class TestReadCards:
    def test_folders_and_files_by_the_name_of_the_folder_in_their_order(self, write_card: WriteCard) -> None:
        paths = [write_card("runs/b", "one"), write_card("runs/a", "two") / REPORT_FILE, write_card("c/d", "three")]
        cards = read_cards(paths)
        assert list(presets(cards).items()) == [("b", "one"), ("a", "two"), ("d", "three")]

    def test_a_file_of_another_name(self, write_card: WriteCard) -> None:
        assert presets(read_cards([write_card("run", "own", "report-own.json") / "report-own.json"])) == {"run": "own"}

    def test_as_much_of_the_path_as_tells_them_apart(self, write_card: WriteCard) -> None:
        paths = [write_card(f"{place}/quick", place) for place in ("monday", "tuesday")]
        assert presets(read_cards(paths)) == {"monday/quick": "monday", "tuesday/quick": "tuesday"}
        deeper = [*paths, write_card("other/monday/quick", "third")]
        names = [f"{paths[0].parent.parent.name}/monday/quick", f"{paths[0].parent.parent.name}/tuesday/quick"]
        assert list(read_cards(deeper)) == [*names, "other/monday/quick"]

    def test_folders_of_different_depth(self, write_card: WriteCard, tmp_path: Path) -> None:
        paths = [write_card("x", "outer"), write_card("x/x", "inner")]
        assert presets(read_cards(paths)) == {f"{tmp_path.name}/x": "outer", "x/x": "inner"}

    def test_no_card_is_lost_where_two_are_in_one_folder(self, write_card: WriteCard) -> None:
        folder = write_card("run", "test split")
        write_card("run", "own sentences", "report-own.json")
        cards = read_cards([folder, folder / "report-own.json"])
        assert presets(cards) == {
            str(folder / "report.json"): "test split",
            str(folder / "report-own.json"): "own sentences",
        }

    def test_one_that_is_named_twice_is_there_once(self, write_card: WriteCard) -> None:
        folder = write_card("run")
        assert list(read_cards([folder, folder / REPORT_FILE, folder])) == ["run"]

    def test_paths_from_where_the_user_is(self, write_card: WriteCard, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(write_card("run", "here"))
        assert presets(read_cards([Path()])) == presets(read_cards([Path(REPORT_FILE)])) == {"run": "here"}

    def test_nothing_is_asked_for(self) -> None:
        assert read_cards([]) == {}

    @pytest.mark.parametrize(
        ("place", "file", "folder"),
        [("there", "there/report.json", "there"), ("gone", "gone/report.json", "gone"), ("gone.json", "gone.json", "")],
    )
    def test_one_that_is_missing_is_named_with_what_to_do(
        self, place: str, file: str, folder: str, write_card: WriteCard, tmp_path: Path
    ) -> None:
        (tmp_path / "there").mkdir()
        with pytest.raises(DataError, match=r"there is no report card: got .*\(FileNotFoundError\)") as raised:
            read_cards([write_card("run"), tmp_path / place])
        assert f"got {tmp_path / file} (" in str(raised.value)
        assert str(raised.value).endswith(f"mtdistill test {tmp_path / folder}")

    @pytest.mark.parametrize("content", [b"", b"{", b'{"schema_version": 1}'], ids=repr)
    def test_one_that_is_damaged_is_an_error(self, content: bytes, write_card: WriteCard) -> None:
        file = write_card("run") / REPORT_FILE
        file.write_bytes(content)
        with pytest.raises(DataError, match="report card could not be read"):
            read_cards([file.parent])

    def test_one_that_is_no_text_is_named(self, write_card: WriteCard) -> None:
        file = write_card("run") / REPORT_FILE
        file.write_bytes(b"\xff\xfe{")
        with pytest.raises(DataError, match=r"got .*report\.json \(UnicodeDecodeError\)"):
            read_cards([file])


def test_the_word_all_run_folders_start_with_is_left_out(write_card: WriteCard) -> None:
    runs = [write_card(f"distillation-{preset}", preset) for preset in ("quick", "balanced")]
    assert list(read_cards(runs)) == ["quick", "balanced"]
