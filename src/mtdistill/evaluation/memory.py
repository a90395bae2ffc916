"""How much memory a model takes to translate, seen from a process of its own.

Run as ``python -m mtdistill.evaluation.memory FOLDER SOURCE_LANG COMPUTE_TYPE`` with sentences on standard input, it
prints MiB; `peak_memory_mib` does that.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mtdistill.decoding import ComputeType, CTranslate2Translator
from mtdistill.text import normalise

SENTENCES = 256


def peak_memory_mib(
    folder: Path, sources: Sequence[str], source_lang: str, compute_type: ComputeType = "float32"
) -> float | None:
    """MiB that loading a model and translating with it add to a fresh process, at their highest.

    What Python and its packages take before the model is loaded is not counted.

    Args:
        folder: CTranslate2 folder with its tokenizer.
        sources: sentences to translate, beam 1, batch 32, one thread; the first 256 are taken.
        source_lang: language they are normalised for.
        compute_type: number format of the weights in use.

    Returns:
        None where the system does not tell (it is read from /proc), or the process failed.
    """
    child = subprocess.run(
        [sys.executable, "-m", "mtdistill.evaluation.memory", str(folder), source_lang, compute_type],
        input="\n".join(" ".join(source.split()) for source in sources[:SENTENCES]).encode("utf-8", "replace"),
        capture_output=True,
        check=False,
    )
    try:
        return float(child.stdout)
    except ValueError:
        return None


def _status_kib(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1])


def _main(folder: str, source_lang: str, compute_type: ComputeType) -> None:
    import ctranslate2  # noqa: F401 (now, for its own memory and OpenCC's are not the model's)

    normalise("", source_lang)
    sources = sys.stdin.buffer.read().decode().split("\n")
    before = _status_kib("VmRSS")
    translator = CTranslate2Translator.open(Path(folder), source_lang=source_lang, compute_type=compute_type)
    translator.translate(sources)
    sys.stdout.write(str((_status_kib("VmHWM") - before) / 1024))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], "int8" if sys.argv[3] == "int8" else "float32")
