"""Small things made on the spot: a corpus that is learnt in two seconds, its tokenizer, and a teacher that knows it.

Heavy packages are imported inside the fixtures, so that tests which need none of them start at once.
"""

import copy
import itertools
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from mtdistill import messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

    TinyTeacher = tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure, and first calls compile kernels
settings.load_profile("unhurried")

SUBJECTS = {"他": "he", "她": "she", "汤姆": "Tom", "老师": "the teacher", "我妈妈": "my mother"}
VERBS = {"喜欢": "likes", "看见": "sees", "需要": "needs", "买了": "bought", "忘了": "forgot"}
OBJECTS = dict(zip("猫狗书水花门茶鱼", ["cat", "dog", "book", "water", "flower", "door", "tea", "fish"], strict=True))
UPDATES, BATCH_SIZE, LEARNING_RATE = 180, 32, 3e-2  # learns everything, tried with four seeds


def pytest_configure() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
    # What CTranslate2 takes for int8 by itself rounds differently on processors without VNNI (docs/experiments.md).
    os.environ["CT2_USE_MKL"] = "1"
    # Processes that tests start are to import what is tested here, not what happens to be installed.
    source = str(Path(__file__).parents[1] / "src")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))


@pytest.fixture(autouse=True)
def surroundings() -> Iterator[None]:
    """English messages, one thread and all small numbers, whatever the machine and the test before."""
    messages.set_language("en")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
        sys.modules["torch"].set_flush_denormal(False)  # a run switches it on; hypothesis refuses to draw then
    yield
    messages.set_language(None)


@pytest.fixture(scope="session")
def tiny_corpus() -> list[tuple[str, str]]:
    """200 Chinese-English pairs of subject, verb and object; all distinct on both sides."""
    parts = itertools.product(SUBJECTS.items(), VERBS.items(), OBJECTS.items())
    return [(f"{s}{v}{o}。", f"{subject} {verb} the {noun}.") for (s, subject), (v, verb), (o, noun) in parts]


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_corpus: list[tuple[str, str]]) -> "PreTrainedTokenizerFast":
    """400 pieces: 3 special tokens, 256 bytes, printable ASCII, and the words of `tiny_corpus`."""
    from mtdistill.data.tokenizer import train_tokenizer

    return train_tokenizer((line for pair in tiny_corpus for line in pair), 400, 1.0)


@pytest.fixture(scope="session")
def trained_tiny_teacher(
    tiny_corpus: list[tuple[str, str]], tiny_tokenizer: "PreTrainedTokenizerFast"
) -> "T5ForConditionalGeneration":
    """Behind `tiny_teacher`, which every test gets a copy of."""
    import torch
    from transformers import T5ForConditionalGeneration

    from mtdistill.modeling import t5_config

    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = t5_config(len(tiny_tokenizer), encoder_layers=2, decoder_layers=2, width=16, heads=2, head_width=8,
                           feed_forward_width=32, dropout=0.0)  # fmt: skip
        model = T5ForConditionalGeneration(config)
        # The final gain stays as it is, like that of our real teachers.
        trained = [p for name, p in model.named_parameters() if name != "decoder.final_layer_norm.weight"]
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.8, 0.95), weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, UPDATES)
        for update in range(UPDATES):
            pairs = random.Random(update).sample(tiny_corpus, BATCH_SIZE)
            sources, targets = (
                tiny_tokenizer(list(side), return_tensors="pt", padding=True) for side in zip(*pairs, strict=True)
            )
            labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, -100)
            loss = model(input_ids=sources["input_ids"], attention_mask=sources["attention_mask"], labels=labels).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            model.zero_grad()
    return model.eval()


@pytest.fixture
def tiny_teacher(
    trained_tiny_teacher: "T5ForConditionalGeneration", tiny_tokenizer: "PreTrainedTokenizerFast"
) -> "TinyTeacher":
    """A T5 (2+2 layers, width 16, 2 heads, vocabulary 400) that translates `tiny_corpus`, and its tokenizer."""
    return copy.deepcopy(trained_tiny_teacher), copy.deepcopy(tiny_tokenizer)


@pytest.fixture(scope="session")
def tiny_teacher_folder(
    trained_tiny_teacher: "T5ForConditionalGeneration",
    tiny_tokenizer: "PreTrainedTokenizerFast",
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """`tiny_teacher` as `mtdistill teacher train` leaves it: Hugging Face folder, tokenizer, training record."""
    folder = tmp_path_factory.mktemp("teacher") / "best"
    trained_tiny_teacher.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    record = {"source_lang": "zh", "target_lang": "en"}
    (folder / "training_record.json").write_text(json.dumps(record), encoding="utf-8")
    return folder
