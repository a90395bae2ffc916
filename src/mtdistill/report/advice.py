"""What to change after a promise was missed, in words, with the numbers it is based on."""

from mtdistill.messages import tr
from mtdistill.report.card import ReportCard
from mtdistill.report.wording import check_name, class_name, condition, millions, milliseconds, percent


def advice(card: ReportCard) -> list[str]:
    """One paragraph for each thing that went wrong, the most serious first; empty when every promise holds."""
    if not card.promises:  # nothing is known of its training
        return []
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


def _training_failed(card: ReportCard) -> str:
    rate, temperature = card.settings.get("training.learning_rate"), card.settings.get("kd.temperature")
    quality = card.quality
    return tr(
        en=f"Training failed: {percent(card.success.rate)} of the translations are usable and BLEU is "
        f"{quality.student.bleu:.2f} (teacher {quality.teacher.bleu:.2f}). Lower training.learning_rate "
        f"(now {rate}), raise kd.temperature (now {temperature}), and look at the loss in the logs.",
        zh=f"训练失败：只有 {percent(card.success.rate)} 的译文可用，BLEU 为 {quality.student.bleu:.2f}"
        f"（教师 {quality.teacher.bleu:.2f}）。请降低 training.learning_rate（现为 {rate}），"
        f"提高 kd.temperature（现为 {temperature}），并查看日志中的损失曲线。",
    ) + _main_failure(card)


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
    paragraph += _weakest_length(card) + _main_failure(card)
    if card.success.teacher_rate < success.expected:
        paragraph += tr(
            en=f" The teacher itself passes the output checks on only {percent(card.success.teacher_rate)}: "
            "a better teacher comes first.",
            zh=f"教师模型自身也只有 {percent(card.success.teacher_rate)} 通过输出检查：应先改进教师模型。",
        )
    if not kept.kept and card.quality.retention.high >= kept.expected:
        high = percent(card.quality.retention.high)
        paragraph += tr(
            en=f" The miss may be chance: the 95 % interval of the share of BLEU reaches up to {high}.",
            zh=f"差距可能出于偶然：BLEU 占比的 95 % 区间上限为 {high}。",
        )
    return paragraph


def _weakest_length(card: ReportCard) -> str:
    """The class of lengths in which the student keeps least of the teacher's BLEU; empty for a single class."""
    classes = [each for each in card.by_length if each.teacher_bleu > 0]
    if len(classes) < 2:
        return ""
    worst = min(classes, key=lambda each: each.student_bleu / each.teacher_bleu)
    words, scores = class_name(worst.low, worst.high), (f"{worst.student_bleu:.1f}", f"{worst.teacher_bleu:.1f}")
    return tr(
        en=f" Least is kept on sources of {words} words (BLEU {scores[0]}, teacher {scores[1]}).",
        zh=f"原文长度为 {words} 词时差距最大（BLEU {scores[0]}，教师 {scores[1]}）。",
    )


def _main_failure(card: ReportCard) -> str:
    """The check that most translations fail; empty where none fails any."""
    if not card.success.failures:
        return ""
    check, count = max(card.success.failures.items(), key=lambda item: item[1])
    name, share = check_name(check), percent(count / card.sentences)
    return tr(
        en=f" The most frequent failure: {name} ({count} sentences, {share}).",
        zh=f"最常见的失败：{name}（{count} 句，{share}）。",
    )


def _too_slow(card: ReportCard) -> str:
    promise, width = card.promise("speed_up"), _width(card)
    layers = _layers(card, "student.decoder_layers")
    slowest = min(card.speed_ups[: card.promised_speed_ups], key=lambda speed: speed.ratio)
    student, teacher = milliseconds(slowest, slowest.student), milliseconds(slowest, slowest.teacher)
    return tr(
        en=f"Too slow: {promise.measured:.2f}x as fast as the teacher ({promise.expected:g}x expected) in the slowest "
        f"promised condition, {condition(slowest)}: {student} ms a sentence, teacher {teacher} ms. Keep fewer decoder "
        f"layers (student.decoder_layers, now {layers}), because every target token passes through each of them, or "
        f"lower {width}. Batch size and gradient accumulation change training alone.",
        zh=f"速度不足：在最慢的承诺条件（{condition(slowest)}）下，速度仅为教师的 {promise.measured:.2f} 倍"
        f"（预期 {promise.expected:g} 倍）：每句 {student} 毫秒，教师 {teacher} 毫秒。"
        f"请减少解码器层数（student.decoder_layers，现为 {layers}），因为每个目标词元都要经过每一层；"
        f"或降低 {width}。批大小和梯度累积只影响训练。",
    )


def _too_large(card: ReportCard) -> str:
    ratio, width = card.promise("compression_ratio"), _width(card)
    sizes = f"{millions(card.student.parameters)}", f"{millions(card.teacher.parameters)}"
    layers = _layers(card, "student.encoder_layers"), _layers(card, "student.decoder_layers")
    return tr(
        en=f"Too large: {ratio.measured:.2f}x smaller than the teacher ({ratio.expected:g}x expected), {sizes[0]} "
        f"parameters of {sizes[1]}. Lower {width}, or keep fewer layers "
        f"(student.encoder_layers, now {layers[0]}; student.decoder_layers, now {layers[1]}).",
        zh=f"模型过大：压缩比为 {ratio.measured:.2f}（预期 {ratio.expected:g}），参数量 {sizes[0]}，教师 {sizes[1]}。"
        f"请降低 {width}，或减少层数"
        f"（student.encoder_layers，现为 {layers[0]}；student.decoder_layers，现为 {layers[1]}）。",
    )


def _layers(card: ReportCard, name: str) -> str:
    layers = card.settings.get(name)
    return tr(en="all of the teacher's", zh="与教师相同") if layers is None else str(layers)


def _width(card: ReportCard) -> str:
    """The setting that decides the width, with its value."""
    name = "student.width_ratio" if card.settings.get("student.width") is None else "student.width"
    return tr(en=f"{name} (now {card.settings.get(name)})", zh=f"{name}（现为 {card.settings.get(name)}）")
