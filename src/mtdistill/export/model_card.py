"""README.md of an export: what the model is, what it was measured to be, and how to use it.

Imported by export.exporting; imports data, decoding, report, student and export.gate.
"""

import json
import re

from mtdistill.data.corpora import LICENCES, is_builtin
from mtdistill.decoding.translator import SECOND_TRY_NGRAM_SIZE
from mtdistill.export.gate import Parity
from mtdistill.report import ReportCard
from mtdistill.student.loading import FoundModel

_USE = {
    "hf": """from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForSeq2SeqLM.from_pretrained(FOLDER, dtype="float32")  # as it was checked, however it is stored
output = model.generate(**tokenizer([TEXT], return_tensors="pt"))
print(tokenizer.decode(output[0], skip_special_tokens=True))
""",
    "ctranslate2": """import ctranslate2, transformers

tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode(TEXT))
output = ctranslate2.Translator(FOLDER).translate_batch([tokens], beam_size=1)[0].hypotheses[0]
print(tokenizer.decode(tokenizer.convert_tokens_to_ids(output), skip_special_tokens=True))
""",
    "onnx": """from pathlib import Path
import mtdistill

translator = mtdistill.OnnxTranslator.open(Path(FOLDER), source_lang=LANG)
print(translator.translate([TEXT])[0].text)
""",
}


def model_card(
    model: FoundModel, format_name: str, precision: str, parity: Parity, report: ReportCard | None, example: str
) -> str:
    """The text of README.md, with the header that model hubs read. In English, as is usual there.

    Args:
        model: what was exported.
        format_name: "hf", "ctranslate2" or "onnx".
        precision: number format of the weights.
        parity: how the export compares with the model.
        report: card of the student's run; None where there is none.
        example: a source sentence for the lines on use.
    """
    corpora = _corpora(model)
    licences = {licence for _, licence in corpora}
    # Quoted, for a plain `no` is a truth value in YAML.
    header = ["---", "language:", f'- "{model.source_lang}"', f'- "{model.target_lang}"', "tags:", "- translation"]
    header += [
        f"license: {licences.pop() if len(licences) == 1 else 'other'}",
        "library_name: " + _LIBRARY[format_name],
    ]
    preset = str((model.info.get("config") or {}).get("preset", ""))
    made = f"distilled with mtdistill, preset `{preset}`" if preset else "made with mtdistill"
    lines = [
        *header,
        "---",
        "",
        f"# {model.source_lang} to {model.target_lang}, {model.parameters / 1e6:.2f} M parameters",
        "",
        f"A T5 translation model, {made}. This folder: {_NAMES[format_name]}, {precision}.",
        "",
        "## Use",
        "",
        "```python",
        _example(format_name, example, model.source_lang),
        "```",
        "",
        "Text is expected in simplified Chinese." if model.source_lang.startswith("zh") else "",
        *_NOTES.get(format_name, ()),
        "",
        "The model has learnt from single sentences: give it one at a time. An output that repeats itself or does not end "
        f"comes out better with `no_repeat_ngram_size={SECOND_TRY_NGRAM_SIZE}`. mtdistill does both, and so the figures "
        "below are measured.",
        "",
        "## Measured",
        "",
        f"Against the same model in PyTorch, float32, greedy: {parity.identical:.1%} of {parity.sentences} validation "
        f"translations identical, BLEU {parity.bleu_before:.2f} before and {parity.bleu_after:.2f} here "
        f"({parity.signature}).",
        *(_report_lines(report) if report else ()),
        "",
        "## Data and licence",
        "",
        *(f"- {text}" for text, _ in corpora),
        "",
    ]
    return "\n".join(lines)


_LIBRARY = {"hf": "transformers", "ctranslate2": "ctranslate2", "onnx": "transformers.js"}
_NAMES = {"hf": "Hugging Face transformers", "ctranslate2": "CTranslate2", "onnx": "ONNX"}
_NOTES = {
    "hf": (
        "",
        "Needs transformers 5. If it says that it will not tie the source's embedding table to the target's, it is right:",
        "they are two.",
    ),
    "onnx": (
        "",
        "In a browser or Node, with transformers.js: `pipeline('translation', folder, {dtype: 'q8'})`, or",
        "`dtype: 'fp32'` for the float32 export.",
    ),
}


def _example(format_name: str, text: str, lang: str) -> str:
    values = {"TEXT": json.dumps(text, ensure_ascii=False), "LANG": json.dumps(lang), "FOLDER": '"path/to/this/folder"'}
    return re.sub("|".join(values), lambda found: values[found[0]], _USE[format_name]).rstrip()


def _corpora(model: FoundModel) -> list[tuple[str, str]]:
    """What the model learnt from, in words, and its licence."""
    data = (model.info.get("config") or {}).get("data") or {}
    entries = [str(entry) for name in ("train", "extra") for entry in data.get(name) or ()]
    named = sorted({entry.split(":")[0] for entry in entries if is_builtin(entry)})
    own = [("text of the maker's own; its licence is not recorded", "other")]
    return [LICENCES[name] for name in named] + (own if not entries or not all(map(is_builtin, entries)) else [])


def _report_lines(report: ReportCard) -> list[str]:
    quality, retention = report.quality, report.quality.retention
    rows = [
        ("BLEU, greedy", f"{quality.student.bleu:.2f}", f"{quality.teacher.bleu:.2f}"),
        ("chrF2, greedy", f"{quality.student.chrf:.1f}", f"{quality.teacher.chrf:.1f}"),
        ("success rate", f"{report.success.rate:.1%}", f"{report.success.teacher_rate:.1%}"),
        ("parameters", f"{report.student.parameters / 1e6:.2f} M", f"{report.teacher.parameters / 1e6:.2f} M"),
    ]
    return [
        "",
        f"The student on {report.sentences} test sentences ({report.test_set}), {report.engine}:",
        "",
        "| | student | teacher |",
        "|---|---|---|",
        *(f"| {name} | {ours} | {theirs} |" for name, ours, theirs in rows),
        "",
        f"It keeps {retention.ratio:.1%} of the teacher's BLEU (95 % interval {retention.low:.1%} to "
        f"{retention.high:.1%}). {quality.student.bleu_signature}; {quality.student.chrf_signature}.",
    ]
