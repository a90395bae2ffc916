"""One joint SentencePiece unigram vocabulary with byte fallback, served as a single ``tokenizer.json``.

SentencePiece learns the pieces; `tokenizers` serves them, because one ``tokenizer.json`` is what AutoTokenizer,
CTranslate2 and browsers all read. There are no unknown tokens: a character outside the vocabulary becomes its UTF-8
bytes.

The special tokens are spelt with U+FE64 and U+FE65 (small angle brackets). NFKC turns those into ``<`` and ``>``, so
no normalised text can contain a special token, and a literal ``</s>`` in user text stays text
(docs/decisions/0003-tokenizer.md).
"""

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mtdistill.errors import DataError
from mtdistill.messages import tr

PAD, EOS, UNK = "﹤pad﹥", "﹤/s﹥", "﹤unk﹥"
PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
DEFAULT_VOCABULARY_SIZE = 6000
# Below any learnt score, so that the six characters "<0x41>" in a text are never taken for the byte 0x41.
_BYTE_SCORE = -1000.0
_MAX_FILE_BYTES = 2**27  # the largest public tokenizers have some 30 MB
_MAX_COUNT = 10_000  # of pieces that are made up, which takes a second; T5 has 100
_NO_COUNTS = {"length", "len", "size", "id"}  # last words of names of numbers that may be large
_TRIAL = ["a 1.", "文\U000f0000"]  # the last is a character for private use, which no vocabulary has
_PRINTABLE_ASCII = "".join(map(chr, range(0x21, 0x7F)))


def train_tokenizer(
    lines: Iterable[str], vocabulary_size: int = DEFAULT_VOCABULARY_SIZE, character_coverage: float = 0.998
) -> PreTrainedTokenizerFast:
    """Learn a joint vocabulary from normalised training text of both languages.

    Args:
        lines: normalised text, sources and targets.
        vocabulary_size: pieces in all, special tokens and 256 bytes included.
        character_coverage: share of character occurrences that get a piece of their own, in (0, 1].

    Raises:
        DataError: the text cannot fill a vocabulary of this size; the message says which size fits.
    """
    model = io.BytesIO()
    failures: list[BaseException] = []

    def watched() -> Iterator[str]:
        try:
            yield from lines
        except BaseException as error:
            failures.append(error)
            raise

    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=watched(),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary_size,
            character_coverage=character_coverage,
            byte_fallback=True,
            normalization_rule_name="identity",  # the text is normalised already, and tokenizer.json carries NFKC
            required_chars=_PRINTABLE_ASCII,
            pad_id=PAD_ID,
            pad_piece=PAD,
            eos_id=EOS_ID,
            eos_piece=EOS,
            unk_id=UNK_ID,
            unk_piece=UNK,
            bos_id=-1,
            num_threads=1,  # the result depends on the number of threads
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        if failures:  # which SentencePiece wraps in an error of its own, an interruption by the user as well
            raise failures[0] from None
        # Without the place in its source, "INTERNAL: src/trainer_interface.cc(744) [...] ", which may be all there is.
        detail = str(error).rpartition("] ")[2].strip(" .") or "no text"
        raise DataError(
            tr(
                en=f"the tokenizer could not be trained: got vocabulary size {vocabulary_size}; SentencePiece says: "
                f"{detail}. Give more text or set data.vocabulary_size to a size it accepts.",
                zh=f"无法训练分词器：词表大小为 {vocabulary_size}；SentencePiece 的说明：{detail}。"
                "请提供更多文本，或把 data.vocabulary_size 改成它接受的大小。",
            )
        ) from error
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocabulary = [
        (pieces.id_to_piece(i), _BYTE_SCORE if pieces.is_byte(i) else pieces.get_score(i))
        for i in range(pieces.get_piece_size())
    ]
    return serve_pieces(vocabulary)


def serve_pieces(vocabulary: list[tuple[str, float]]) -> PreTrainedTokenizerFast:
    """The tokenizer over these (piece, log probability) rows; the first three are `PAD`, `EOS` and `UNK`."""
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=UNK_ID, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, EOS_ID)])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (PAD, EOS, UNK)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a Hugging Face folder; never runs code that lies in it.

    Raises:
        DataError: the folder holds no tokenizer that AutoTokenizer can read, or one that does not work.
    """
    try:
        _require_plausible(folder)
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        # Beside the config.json of a model, transformers makes up an empty tokenizer instead of failing.
        if not any((folder / name).is_file() for name in tokenizer.vocab_files_names.values()):
            raise FileNotFoundError
        _try_out(tokenizer)
        return tokenizer
    except BaseException as error:  # transformers raises many kinds for a damaged or missing file
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of the library in Rust
            raise
        raise DataError(
            tr(
                en=f"the tokenizer could not be read: got {folder} ({type(error).__name__}), accepted a folder with "
                "tokenizer.json. Point at a complete model folder.",
                zh=f"无法读取分词器：得到 {folder}（{type(error).__name__}），需要含有 tokenizer.json 的文件夹。"
                "请指向完整的模型文件夹。",
            )
        ) from error


def _require_plausible(folder: Path) -> None:
    """Refuse what takes long or much memory to read: huge files, and settings that count what is to be made up."""
    for file in folder.iterdir():
        if file.suffix in (".json", ".model") and file.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(file.name)
    settings_file = folder / "tokenizer_config.json"
    if settings_file.is_file():
        settings = json.loads(settings_file.read_text(encoding="utf-8"))
        for name, value in settings.items():  # such as extra_ids
            if isinstance(value, int) and value > _MAX_COUNT and name.split("_")[-1] not in _NO_COUNTS:
                raise ValueError(name)


def _try_out(tokenizer: PreTrainedTokenizerFast) -> None:
    """Settings that do not fit each other fail at the first use, and here it is known which file is to blame."""
    ids = tokenizer(_TRIAL)["input_ids"]
    tokenizer.pad({"input_ids": ids})
    tokenizer.batch_decode(ids, skip_special_tokens=True)
    if any(None in tokenizer.convert_ids_to_tokens(line) or line[-1:] != [tokenizer.eos_token_id] for line in ids):
        raise ValueError("ids without a piece, or no end token")
