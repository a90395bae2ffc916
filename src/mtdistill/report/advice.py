"""What to change after a promise was missed, in words, with the numbers it is based on."""

from mtdistill.messages import tr
from mtdistill.report.card import ReportCard


def advice(card: ReportCard) -> list[str]:
    """One paragraph for each thing that went wrong, the most serious first; empty when every promise holds."""
    if card.verdict == "failed":
        return [_training_failed(card)]
    missed = {promise.name for promise in card.promises if not promise.kept}
    found = []
    if missed & {"success_rate", "quality_retention"}:
        found.append(_poor_quality(card))
    if "speed_up" in missed:
        found.append(_too_slow(card))
    if "compression_ratio" in missed:
        found.append(_too_large(card))
    return found


def percent(ratio: float, digits: int = 1) -> str:
    """0.8712 as ``87.1 %``."""
    return f"{100 * ratio:.{digits}f} %"


def _training_failed(card: ReportCard) -> str:
    rate, temperature = card.settings.get("training.learning_rate"), card.settings.get("kd.temperature")
    return tr(
        en=f"Training failed: {percent(card.success.rate)} of the translations are usable and BLEU is "
        f"{card.student.quality.bleu:.2f} (teacher {card.teacher.quality.bleu:.2f}). Lower training.learning_rate "
        f"(now {rate}), raise kd.temperature (now {temperature}), and look at the loss in the logs.",
        zh=f"训练失败：只有 {percent(card.success.rate)} 的译文可用，BLEU 为 {card.student.quality.bleu:.2f}"
        f"（教师 {card.teacher.quality.bleu:.2f}）。请降低 training.learning_rate（现为 {rate}），"
        f"提高 kd.temperature（现为 {temperature}），并查看日志中的损失曲线。",
    )


def _poor_quality(card: ReportCard) -> str:
    success, kept = card.promise("success_rate"), card.promise("quality_retention")
    epochs, alpha, beta = (card.settings.get(name) for name in ("training.epochs", "kd.alpha", "kd.beta"))
    share = float(card.settings.get("training.data_ratio") or 1)
    paragraph = tr(
        en=f"Quality is too low: {percent(success.measured)} of the translations succeed ({percent(success.expected)} "
        f"expected), and BLEU is {percent(kept.measured)} of the teacher's ({percent(kept.expected)} expected). "
        f"Train for more epochs (training.epochs, now {epochs}), or adjust kd.alpha (now {alpha}) and kd.beta "
        f"(now {beta}).",
        zh=f"质量不足：{percent(success.measured)} 的译文成功（预期 {percent(success.expected)}），"
        f"BLEU 为教师的 {percent(kept.measured)}（预期 {percent(kept.expected)}）。"
        f"请增加训练轮数（training.epochs，现为 {epochs}），或调整 kd.alpha（现为 {alpha}）和 kd.beta（现为 {beta}）。",
    )
    if share < 1:
        paragraph += tr(
            en=f" Only {percent(share, 0)} of the training data is used: raise training.data_ratio.",
            zh=f"目前只用了 {percent(share, 0)} 的训练数据：请提高 training.data_ratio。",
        )
    if card.success.teacher_rate < success.expected:
        paragraph += tr(
            en=f" The teacher itself passes the output checks on only {percent(card.success.teacher_rate)}: "
            "a better teacher comes first.",
            zh=f"教师模型自身也只有 {percent(card.success.teacher_rate)} 通过输出检查：应先改进教师模型。",
        )
    return paragraph


def _too_slow(card: ReportCard) -> str:
    speed, width = card.promise("speed_up"), card.settings.get("student.width_ratio")
    return tr(
        en=f"Too slow: {speed.measured:.2f}x as fast as the teacher ({speed.expected:g}x expected). Keep fewer decoder "
        f"layers (student.decoder_layers), or lower student.width_ratio (now {width}).",
        zh=f"速度不足：是教师的 {speed.measured:.2f} 倍（预期 {speed.expected:g} 倍）。"
        f"请减少解码器层数（student.decoder_layers），或降低 student.width_ratio（现为 {width}）。",
    )


def _too_large(card: ReportCard) -> str:
    ratio, width = card.promise("compression_ratio"), card.settings.get("student.width_ratio")
    return tr(
        en=f"Too large: {ratio.measured:.2f}x smaller than the teacher ({ratio.expected:g}x expected). Lower "
        f"student.width_ratio (now {width}), or keep fewer layers (student.encoder_layers, student.decoder_layers).",
        zh=f"模型过大：压缩比为 {ratio.measured:.2f}（预期 {ratio.expected:g}）。"
        f"请降低 student.width_ratio（现为 {width}），或减少层数（student.encoder_layers、student.decoder_layers）。",
    )
