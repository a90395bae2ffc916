import contextlib
import copy
import io
import json
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig, PreTrainedTokenizerFast, T5ForConditionalGeneration

from mtdistill.decoding import DEFAULT_MAX_NEW_TOKENS, HuggingFaceTranslator
from mtdistill.errors import CheckpointError
from mtdistill.student.bundle import FORMAT_VERSION, Student, load_student, save_bundle, save_folder

INFO = {"source_lang": "zh", "target_lang": "en", "validation": {"bleu": 61.5}, "note": "备注"}
SOURCE = "老师喜欢猫。"


@pytest.fixture
def student(tiny_teacher: tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]) -> Student:
    model, tokenizer = tiny_teacher
    return Student(model, tokenizer, INFO)


@pytest.fixture
def bundle(student: Student, tmp_path: Path) -> Path:
    path = tmp_path / "student_best.pt"
    save_bundle(student, path)
    return path


@pytest.fixture
def rewrite(bundle: Path) -> Callable[..., Path]:
    """The bundle with some of its values replaced."""

    def write(**changes: Any) -> Path:
        content = torch.load(bundle, weights_only=True)
        torch.save({**content, **changes}, bundle)
        return bundle

    return write


def logits(student: Student) -> torch.Tensor:
    inputs = student.tokenizer([SOURCE], return_tensors="pt")
    with torch.no_grad():
        found: torch.Tensor = student.model(
            input_ids=inputs["input_ids"], decoder_input_ids=torch.tensor([[0, 5, 9]])
        ).logits
    return found


def save_in_run(student: Student, folder: Path) -> Path:
    save_bundle(student, folder / "checkpoints" / "student_best.pt")
    return folder


def save_as_folder(student: Student, folder: Path) -> Path:
    save_folder(student, folder)
    return folder


def save_as_file(student: Student, folder: Path) -> Path:
    save_bundle(student, folder / "a.pt")
    return folder / "a.pt"


@pytest.mark.parametrize("save", [save_as_file, save_as_folder, save_in_run])
def test_a_student_comes_back_as_it_was(
    save: Callable[[Student, Path], Path], student: Student, tmp_path: Path
) -> None:
    expected = logits(student)
    loaded = load_student(save(student, tmp_path / "saved"))
    assert torch.equal(logits(loaded), expected)
    assert loaded.info == INFO
    assert loaded.tokenizer([SOURCE])["input_ids"] == student.tokenizer([SOURCE])["input_ids"]
    assert not loaded.model.training


@pytest.mark.parametrize("save", [save_as_file, save_as_folder])
def test_tied_weights_stay_one_parameter(
    save: Callable[[Student, Path], Path], student: Student, tmp_path: Path
) -> None:
    model = load_student(save(student, tmp_path / "saved")).model
    assert model.encoder.embed_tokens.weight is model.shared.weight
    assert model.decoder.embed_tokens.weight is model.shared.weight
    assert model.lm_head.weight is model.shared.weight
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in student.model.parameters())


def test_an_untied_head_stays_untied(student: Student, tmp_path: Path) -> None:
    student.model.lm_head.weight = torch.nn.Parameter(student.model.lm_head.weight.detach() * 2)
    expected = logits(student)
    loaded = load_student(save_as_file(student, tmp_path))
    assert loaded.model.lm_head.weight is not loaded.model.shared.weight
    assert torch.equal(logits(loaded), expected)


@pytest.mark.parametrize("save", [save_as_file, save_as_folder])
def test_a_model_saved_while_it_was_trained_generates_with_its_cache(
    save: Callable[[Student, Path], Path], student: Student, tmp_path: Path
) -> None:
    student.model.config.use_cache = False  # as the Trainer does
    model = load_student(save(student, tmp_path / "saved")).model
    assert model.config.use_cache
    assert model.generation_config.use_cache


def test_a_loaded_student_translates(bundle: Path) -> None:
    loaded = load_student(bundle)
    translator = HuggingFaceTranslator(loaded.model, loaded.tokenizer, source_lang="zh")
    assert translator.translate([SOURCE])[0].text == "the teacher likes the cat."


class Hostile:
    """Pickled, it is a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("place", ["whole", "inside"])
def test_a_hostile_file_executes_nothing(place: str, rewrite: Callable[..., Path], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    path = rewrite(info=Hostile(victim))
    if place == "whole":
        path.write_bytes(pickle.dumps(Hostile(victim), protocol=2))
    with pytest.raises(CheckpointError):
        load_student(path)
    assert not victim.exists()
    with contextlib.suppress(RuntimeError):  # no weights came out of it, but what was in it ran
        torch.load(path, weights_only=False)
    assert victim.exists()


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


def torch_bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"just text\n",
        zip_bytes(),
        torch_bytes(torch.zeros(3)),
        torch_bytes([1, 2]),
        torch_bytes({"shared.weight": torch.zeros(3)}),
    ],
    ids=["empty", "text", "zip", "tensor", "list", "weights"],
)
def test_another_kind_of_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "student_best.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"could not be read: got .*student_best\.pt"):
        load_student(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(share: float, bundle: Path) -> None:
    content = bundle.read_bytes()
    bundle.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="Copy it again"):
        load_student(bundle)


def test_a_newer_format_is_named(rewrite: Callable[..., Path]) -> None:
    path = rewrite(format_version=FORMAT_VERSION + 1)
    with pytest.raises(
        CheckpointError, match=rf"got format {FORMAT_VERSION + 1}, accepted {FORMAT_VERSION}. Update mtdistill"
    ):
        load_student(path)


@pytest.mark.parametrize("name", ["nothing.pt", "no/such/folder"])
def test_a_missing_path_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no student"):
        load_student(tmp_path / name)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        load_student(tmp_path)


@pytest.mark.parametrize(
    "claim", [{"vocab_size": 10**9}, {"d_ff": 10**9}, {"num_layers": 10**9}, {"num_decoder_layers": 10**9}], ids=str
)
def test_sizes_that_a_file_only_claims_cost_nothing(claim: dict[str, int], bundle: Path) -> None:
    content = torch.load(bundle, weights_only=True)
    torch.save({**content, "model_config": json.dumps({**json.loads(content["model_config"]), **claim})}, bundle)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            load_student(bundle)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


def drop_a_weight(content: dict[str, Any]) -> None:
    del content["weights"]["encoder.final_layer_norm.weight"]


def drop_the_tokenizer(content: dict[str, Any]) -> None:
    content["tokenizer"] = {}


def break_the_info(content: dict[str, Any]) -> None:
    content["info"] = "[1, 2]"


@pytest.mark.parametrize("damage", [drop_a_weight, drop_the_tokenizer, break_the_info])
def test_an_incomplete_bundle_is_refused(damage: Callable[[dict[str, Any]], None], bundle: Path) -> None:
    content = torch.load(bundle, weights_only=True)
    damage(content)
    torch.save(content, bundle)
    with pytest.raises(CheckpointError, match=r"student_best\.pt"):
        load_student(bundle)


def test_a_folder_with_a_damaged_note_is_refused(student: Student, tmp_path: Path) -> None:
    folder = save_as_folder(student, tmp_path / "student")
    (folder / "mtdistill.json").write_text("[", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"mtdistill\.json"):
        load_student(folder)


def test_a_folder_of_another_tool_has_no_info(student: Student, tmp_path: Path) -> None:
    folder = save_as_folder(student, tmp_path / "student")
    (folder / "mtdistill.json").unlink()
    assert load_student(folder).info == {}


HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])


class TestHalfPrecision:
    @HALVES
    def test_every_weight_is_stored_in_it(self, dtype: torch.dtype, student: Student, tmp_path: Path) -> None:
        save_folder(student, tmp_path / "half", dtype)
        save_folder(student, tmp_path / "whole")
        half, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("half", "whole"))
        assert half.keys() == whole.keys()  # a tied table once
        assert {tensor.dtype for tensor in half.values()} == {dtype}
        assert {tensor.dtype for tensor in whole.values()} == {torch.float32}
        for name, tensor in half.items():
            assert torch.equal(tensor, whole[name].to(dtype)), name
        config = json.loads((tmp_path / "half" / "config.json").read_text(encoding="utf-8"))
        assert config["dtype"] == str(dtype).removeprefix("torch.")

    @HALVES
    def test_the_folder_is_loaded_and_translates(self, dtype: torch.dtype, student: Student, tmp_path: Path) -> None:
        save_folder(student, tmp_path / "half", dtype)
        loaded = load_student(tmp_path / "half")
        assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
        assert loaded.model.lm_head.weight is loaded.model.shared.weight
        assert loaded.info == INFO
        assert loaded.tokenizer([SOURCE])["input_ids"] == student.tokenizer([SOURCE])["input_ids"]
        rounding = 8 if dtype == torch.bfloat16 else 1  # bits of the fraction: 7 and 10
        assert torch.allclose(logits(loaded), logits(student), atol=0.05 * rounding)
        translator = HuggingFaceTranslator(loaded.model, loaded.tokenizer, source_lang="zh")
        assert translator.translate([SOURCE])[0].text == "the teacher likes the cat."

    @HALVES
    def test_the_model_in_memory_stays_as_it_is(self, dtype: torch.dtype, student: Student, tmp_path: Path) -> None:
        student.model.generation_config.max_new_tokens = 7
        weights, config = copy.deepcopy(student.model.state_dict()), student.model.config.to_dict()
        save_folder(student, tmp_path / "half", dtype)
        assert student.model.state_dict().keys() == weights.keys()
        for name, tensor in student.model.state_dict().items():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, weights[name]), name
        assert student.model.config.to_dict() == config
        assert student.model.generation_config.max_new_tokens == 7
        assert student.model.lm_head.weight is student.model.shared.weight
        assert student.model.dtype == torch.float32


class TestGenerationOfOthers:
    """What transformers does with a folder on its own, without our translators."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    def test_the_folder_says_how_long_a_translation_may_be(
        self, dtype: torch.dtype, student: Student, tmp_path: Path
    ) -> None:
        save_folder(student, tmp_path / "student", dtype)
        assert GenerationConfig.from_pretrained(tmp_path / "student").max_new_tokens == DEFAULT_MAX_NEW_TOKENS

    def test_long_texts_are_not_cut_at_20_tokens(self, student: Student, tmp_path: Path) -> None:
        end = student.tokenizer.eos_token_id
        student.model.lm_head.weight = torch.nn.Parameter(student.model.lm_head.weight.detach().clone())
        with torch.no_grad():
            student.model.lm_head.weight[end] = 0  # hardly ever the most likely token
        student.model.config.tie_word_embeddings = False
        save_folder(student, tmp_path / "student")
        loaded = T5ForConditionalGeneration.from_pretrained(tmp_path / "student")
        inputs = student.tokenizer(["他喜欢猫。" * 10], return_tensors="pt")
        output = loaded.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        assert 21 < output.shape[1] <= 1 + DEFAULT_MAX_NEW_TOKENS
