from pathlib import Path
from typing import get_args

import pytest

from mtdistill.decoding import CTranslate2Translator, Quantization, Translation, convert_to_ctranslate2
from mtdistill.errors import CheckpointError


class TestConversion:
    @pytest.mark.parametrize("quantization", get_args(Quantization))
    def test_stores_weights_in_each_format(
        self, quantization: Quantization, tiny_teacher_folder: Path, learnt: dict[str, Translation], tmp_path: Path
    ) -> None:
        convert_to_ctranslate2(tiny_teacher_folder, tmp_path, quantization)
        translator = CTranslate2Translator.open(tmp_path, source_lang="zh")
        # No processor here computes in float16: the weights become float32 when they are read.
        assert translator.precision == {"float16": "float32"}.get(quantization, quantization)
        outputs = translator.translate(list(learnt))
        same = sum(output == known for output, known in zip(outputs, learnt.values(), strict=True))
        assert same >= {"float32": 200, "float16": 198, "int8": 150}[quantization]

    def test_fewer_bits_make_smaller_files(self, tiny_teacher_folder: Path, tmp_path: Path) -> None:
        sizes = []
        for quantization in get_args(Quantization):
            convert_to_ctranslate2(tiny_teacher_folder, tmp_path, quantization)
            sizes.append((tmp_path / "model.bin").stat().st_size)
        assert sizes[0] > 1.8 * sizes[1]
        assert sizes[1] > 1.3 * sizes[2]  # not twice: in so narrow a model the scales of the rows weigh much

    def test_of_a_folder_without_a_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"to CTranslate2: got .*ValueError: .*accepted a Hugging Face"):
            convert_to_ctranslate2(tmp_path, tmp_path / "out")
        with pytest.raises(CheckpointError, match=r"to CTranslate2: got .*accepted a Hugging Face"):
            CTranslate2Translator.from_folder(tmp_path, source_lang="zh")
