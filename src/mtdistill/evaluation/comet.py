"""COMET, a neural metric: optional, because it needs a package and a model of gigabytes."""

from collections.abc import Sequence
from pathlib import Path

from mtdistill.errors import DataError, MissingExtraError
from mtdistill.messages import tr


def require_comet() -> None:
    """Told before minutes of translating.

    Raises:
        MissingExtraError: the package ``unbabel-comet`` is not installed.
    """
    try:
        import comet  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            tr(
                en="COMET cannot be measured: the package unbabel-comet is not installed. "
                "Install it (pip install unbabel-comet), or leave out --comet.",
                zh="无法计算 COMET：没有安装 unbabel-comet。请安装（pip install unbabel-comet），或去掉 --comet。",
            )
        ) from error


def comet_scores(
    model_path: Path, sources: Sequence[str], references: Sequence[Sequence[str]], systems: Sequence[Sequence[str]]
) -> list[float]:
    """COMET of each system, 0 to 100, against the first reference of every sentence.

    Args:
        model_path: checkpoint file of a COMET model on this computer; nothing is downloaded.
        sources: the sentences.
        references: every reference of each sentence; COMET reads one.
        systems: the translations of each system.

    Raises:
        MissingExtraError: the package ``unbabel-comet`` is not installed.
        DataError: the model cannot be loaded.
    """
    require_comet()
    from comet import load_from_checkpoint

    try:
        model = load_from_checkpoint(str(model_path))
    except Exception as error:  # torch, yaml and comet raise their own for every kind of damage
        raise DataError(
            tr(
                en=f"the COMET model could not be loaded: got {model_path} ({type(error).__name__}), accepted the "
                "checkpoint file of a COMET model (.ckpt). Check the path.",
                zh=f"无法加载 COMET 模型：{model_path}（{type(error).__name__}），需要 COMET 模型的检查点文件（.ckpt）。"
                "请检查路径。",
            )
        ) from error

    def score(hypotheses: Sequence[str]) -> float:
        rows = [
            {"src": source, "mt": hypothesis, "ref": refs[0]}
            for source, hypothesis, refs in zip(sources, hypotheses, references, strict=True)
        ]
        return 100 * float(model.predict(rows, batch_size=16, gpus=0, progress_bar=False).system_score)

    return [score(hypotheses) for hypotheses in systems]
