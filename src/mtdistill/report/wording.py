"""The words and numbers of a report card as short texts, the same on a terminal and in a browser.

Knows nothing of how they are drawn. Imported by cli, distillation and its neighbours; imports evaluation and
report.card.
"""

from mtdistill.evaluation import SpeedUp, Timing
from mtdistill.evaluation.success import FAR_BELOW_TEACHER
from mtdistill.messages import listed as listed
from mtdistill.messages import tr
from mtdistill.report.card import ReportCard


def percent(ratio: float, digits: int = 1) -> str:
    """0.8712 as ``87.1 %``."""
    return f"{100 * ratio:.{digits}f} %"


def times(ratio: float) -> str:
    """1.8 as ``1.80x``; one digit from ten on, where the second is noise."""
    return f"{ratio:.1f}x" if ratio >= 10 else f"{ratio:.2f}x"


def millions(parameters: int) -> str:
    """4160206 as ``4.16 M``."""
    return f"{parameters / 1e6:.2f} M"


def span(low: float, high: float, digits: int) -> str:
    """Two ends of an interval, with a dash between them."""
    return f"{low:.{digits}f}–{high:.{digits}f}"


def interval(card: ReportCard) -> str:
    """The 95 % interval of the headline retention, in percent."""
    kept = card.quality.retention
    return span(100 * kept.low, 100 * kept.high, 1)


def title(card: ReportCard) -> str:
    """What the card is about: preset, if there is one, and languages."""
    parts = (tr(en="Report card", zh="成绩单"), card.preset, f"{card.source_lang}→{card.target_lang}")
    return " · ".join(part for part in parts if part)


def measured_at(card: ReportCard) -> str:
    """Day and minute."""
    return f"{card.measured_at[:16].replace('T', ' ')} UTC"


def verdict(card: ReportCard) -> str:
    """The verdict as a sentence without its full stop."""
    missed = sum(not promise.kept for promise in card.promises)
    return {
        "kept": tr(en="every promise is kept", zh="全部达标"),
        "missed": tr(
            en=f"{missed} of {len(card.promises)} promises missed", zh=f"{len(card.promises)} 项中 {missed} 项未达标"
        ),
        "failed": tr(en="training failed", zh="训练失败"),
        "unpromised": tr(en="measured, nothing was promised", zh="已测量，没有承诺"),
    }[card.verdict]


def check_name(check: str) -> str:
    """What is wrong with a translation that fails this check."""
    names = {
        "empty": tr(en="empty", zh="空译文"),
        "failure_marker": tr(en="failure marker", zh="失败标记"),
        "length_cap": tr(en="runs into the length cap", zh="达到长度上限"),
        "loop": tr(en="repeats itself", zh="循环重复"),
        "copy": tr(en="copies the source", zh="照抄原文"),
        "wrong_script": tr(en="wrong script", zh="文字系统不符"),
        "same_output": tr(en="same text as for others", zh="与多句译文相同"),
        FAR_BELOW_TEACHER: tr(en="far below the teacher", zh="远逊于教师"),
    }
    return names.get(check, check)


def when_found(first: int, count: int, last: int) -> str:
    """When a health check spoke: the update of the first time and, if it came again, how often and until when."""
    if count > 1:
        return tr(en=f"{count} times, updates {first} to {last}", zh=f"{count} 次，第 {first} 至 {last} 次更新")
    return tr(en=f"update {first}", zh=f"第 {first} 次更新") if first else tr(en="before training", zh="训练之前")


def failed_checks(card: ReportCard) -> list[str]:
    """Every check that some translation of either model fails, the student's first."""
    return list(dict.fromkeys([*card.success.failures, *card.success.teacher_failures]))


def student_failures(card: ReportCard, check: str) -> str:
    """How many translations of the student fail this check, ``12 (0.8 %)``."""
    return _count_and_share(card.success.failures.get(check, 0), card.sentences)


def teacher_failures(card: ReportCard, check: str) -> str:
    """Likewise of the teacher, which is not compared with itself."""
    if check == FAR_BELOW_TEACHER:
        return "–"
    return _count_and_share(card.success.teacher_failures.get(check, 0), card.sentences)


def _count_and_share(count: int, sentences: int) -> str:
    return f"{count} ({percent(count / sentences)})" if count else "0"


def class_name(low: int, high: int | None) -> str:
    """A class of values from `low` to below `high`."""
    if high is None:
        return f"≥ {low}"
    return f"< {high}" if low == 0 else f"{low}–{high}"


def engine_name(speed: SpeedUp) -> str:
    """Engine and number format; of both models where they differ."""
    teacher, student = (f"{timing.engine} {timing.precision}" for timing in (speed.teacher, speed.student))
    return student if teacher == student else f"{teacher} → {student}"


def threads(speed: SpeedUp) -> str:
    """CPU threads; of both models where they differ."""
    teacher, student = speed.teacher.threads, speed.student.threads
    return str(student) if teacher == student else f"{teacher}→{student}"


def condition(speed: SpeedUp) -> str:
    """The conditions of a measured speed in one line."""
    return tr(
        en=f"{engine_name(speed)}, {threads(speed)} thread(s), batch {speed.batch_size}, beam {speed.beam_size}",
        zh=f"{engine_name(speed)}，{threads(speed)} 线程，批大小 {speed.batch_size}，束宽 {speed.beam_size}",
    )


def milliseconds(speed: SpeedUp, timing: Timing) -> str:
    """Time for a sentence, three digits or more."""
    value = 1000 * timing.seconds / speed.sentences
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def words_per_second(speed: SpeedUp, timing: Timing) -> float:
    """Source words that one model translates in a second."""
    return speed.source_words / timing.seconds


def conditions(card: ReportCard) -> list[tuple[str, str]]:
    """Under which conditions everything was measured, by name."""
    speed, quality = card.speed_ups[0], card.quality
    kept = quality.retention
    repeats = {each.repeats for each in card.speed_ups}
    fewest, most = min(repeats), max(repeats)
    runs = str(most) if fewest == most else tr(en=f"{fewest} to {most}", zh=f"{fewest} 到 {most}")
    found = [
        (
            tr(en="test set", zh="测试集"),
            tr(en=f"{card.test_set}, {card.sentences} sentences", zh=f"{card.test_set}，{card.sentences} 句"),
        ),
        (
            tr(en="translations", zh="译文"),
            tr(
                en=f"{card.engine}; headline: beam {quality.beam_size}",
                zh=f"{card.engine}；主要指标：束宽 {quality.beam_size}",
            ),
        ),
        (
            tr(en="second tries", zh="重新翻译"),
            tr(
                en=f"of the student {card.success.second_tries}, of the teacher {card.success.teacher_second_tries}, "
                "where the first looped or did not end",
                zh=f"学生 {card.success.second_tries} 句，教师 {card.success.teacher_second_tries} 句，"
                "其首次译文循环重复或没有结束",
            ),
        ),
        (tr(en="student", zh="学生"), card.form),
        (
            tr(en="speed", zh="测速"),
            tr(
                en=f"median of {runs} paired runs, tokenisation included",
                zh=f"{runs} 次成对运行的中位数，含分词",
            ),
        ),
        (tr(en="processor", zh="处理器"), speed.cpu),
        ("BLEU", quality.student.bleu_signature),
        ("chrF2", quality.student.chrf_signature),
        (
            tr(en="interval", zh="区间"),
            tr(
                en=f"paired bootstrap, {kept.samples} samples, seed {kept.seed}",
                zh=f"成对自助法，{kept.samples} 次抽样，种子 {kept.seed}",
            ),
        ),
    ]
    if card.training_seconds is not None:
        found.append(
            (tr(en="training", zh="训练"), _training_time(card.training_seconds / 60, card.time_budget_minutes))
        )
    found.append((tr(en="measured", zh="测量"), f"{measured_at(card)}, mtdistill {card.mtdistill_version}"))
    return found


def _training_time(minutes: float, budget: float | None) -> str:
    if budget is None:
        return tr(en=f"{minutes:.1f} minutes", zh=f"{minutes:.1f} 分钟")
    return tr(en=f"{minutes:.1f} minutes of {budget:g} allowed", zh=f"{minutes:.1f} 分钟，预算 {budget:g} 分钟")


def shortened(text: str, limit: int = 200) -> str:
    """A text that may be a loop of hundreds of tokens."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain(text: str) -> str:
    """A text from elsewhere without what would steer the terminal: escape sequences, changes of direction."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
