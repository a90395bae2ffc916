"""What int8 costs a student, and which matrices cost it.

    python benchmarks/int8_loss.py MODEL [--output train_process] [--sentences 1000]

MODEL is a student_best.pt, a run folder or a Hugging Face folder. The validation sentences are translated greedily with the
float32 export, with the int8 export, and with int8 exports in which one kind of matrix stays in float32; and with CTranslate2
in both formats, which rounds all matrices or none. One thread. Prints BLEU, chrF2 and the share of translations that are
those of float32, as a table in Markdown.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mtdistill.cli.quiet import quiet_libraries
from mtdistill.decoding import CTranslate2Translator, OnnxTranslator, Translator
from mtdistill.display import Display
from mtdistill.evaluation import corpus_quality
from mtdistill.export.onnx import convert_to_onnx
from mtdistill.student.loading import find_model, prepared_data_of

KEPT = {
    "nothing": (),
    "output layer": ("lm_head",),
    "embeddings": ("*.embed_tokens",),
    "encoder": ("encoder.block.*",),
    "decoder": ("decoder.block.*",),
    "attention": ("*Attention.*",),
    "feed-forward": ("*.DenseReluDense.*",),
    "feed-forward, second matrix": ("*.DenseReluDense.wo",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--output", help="folder that holds the prepared data")
    parser.add_argument("--sentences", type=int, default=1000)
    arguments = parser.parse_args()
    quiet_libraries()
    found = find_model(arguments.model)
    if found.student is None:
        parser.error("MODEL must be a student in PyTorch")
    model, tokenizer, lang = found.student.model, found.student.tokenizer, found.source_lang
    data = prepared_data_of(found, arguments.output, Display()).evaluation_set("validation", arguments.sentences)

    def translators(scratch: Path) -> Iterator[tuple[str, Translator]]:
        for precision in ("float32", "int8"):
            yield (
                f"CTranslate2 {precision}",
                CTranslate2Translator.from_model(
                    model,
                    tokenizer,
                    source_lang=lang,
                    target_lang=found.target_lang,
                    compute_type=precision,  # type: ignore[arg-type]
                ),
            )
        convert_to_onnx(model, tokenizer, scratch / "float32")
        yield "ONNX float32", OnnxTranslator.open(scratch / "float32", source_lang=lang)
        for name, kept in KEPT.items():
            convert_to_onnx(model, tokenizer, scratch / name, "int8", kept_in_float=kept)
            yield f"ONNX int8, in float32: {name}", OnnxTranslator.open(scratch / name, source_lang=lang)

    print(f"{arguments.model}: {found.parameters:,} parameters, {len(data)} validation sentences\n")
    print("| | BLEU | chrF2 | as in float32 |\n|---|---|---|---|")
    plain: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, translator in translators(Path(scratch)):
            texts = [translation.text for translation in translator.translate(data.sources)]
            plain = plain or texts
            quality = corpus_quality(texts, data.references, found.target_lang)
            same = sum(text == known for text, known in zip(texts, plain, strict=True)) / len(texts)
            print(f"| {name} | {quality.bleu:.2f} | {quality.chrf:.1f} | {same:.1%} |", flush=True)


if __name__ == "__main__":
    main()
