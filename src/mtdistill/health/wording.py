"""What a finding means, in words: what was seen, what it usually means, and what to do or what was done.

Both languages stand side by side; figures come from the finding. Imported by distillation, report and health.journal;
imports health.explanation, health.finding, health.set_up_words and health.training_words.
"""

from collections.abc import Callable

from mtdistill.health.explanation import Explanation
from mtdistill.health.finding import Finding
from mtdistill.health.set_up_words import SET_UP
from mtdistill.health.training_words import TRAINING
from mtdistill.messages import tr

EXPLANATIONS: dict[str, Explanation] = {**TRAINING, **SET_UP}


def explain(finding: Finding) -> str:
    """All of it, in one paragraph; the action last."""
    words = EXPLANATIONS[finding.check]
    done = ACTIONS[finding.action]()
    example = tr(en=f" For example: {finding.example}", zh=f"（例如：{finding.example}）") if finding.example else ""
    gap = tr(en=" ", zh="")
    parts = [words.seen(finding) + example, words.meaning(finding), done or words.advice(finding)]
    return gap.join(parts)


ACTIONS: dict[str, Callable[[], str]] = {
    "none": lambda: "",
    "skipped": lambda: tr(en="mtdistill left this update out and goes on.", zh="mtdistill 已跳过这次更新并继续。"),
    "watched": lambda: tr(
        en="mtdistill now cuts gradients that stand out from those before.",
        zh="mtdistill 从现在起会裁剪明显偏大的梯度。",
    ),
    "returned": lambda: tr(
        en="mtdistill goes back to the last good state, with a lower learning rate.",
        zh="mtdistill 退回到最近的良好状态，并降低学习率。",
    ),
    "restored": lambda: tr(
        en="mtdistill goes back to the last good state, optimizer included.",
        zh="mtdistill 退回到最近的良好状态，包括优化器。",
    ),
    "temperature": lambda: tr(
        en="mtdistill changed the temperature to 2 for this run.", zh="mtdistill 已把本次训练的温度改为 2。"
    ),
    "smaller_parts": lambda: tr(
        en="mtdistill cuts batches into parts of half the size; the effective batch stays the same.",
        zh="mtdistill 把批次切成一半大小的部分；有效批大小不变。",
    ),
    "rebuilt": lambda: tr(en="mtdistill computes it again.", zh="mtdistill 会重新计算。"),
    "stopped": lambda: tr(
        en="mtdistill stops here; the best student so far is kept.", zh="mtdistill 就此停止；目前最好的学生模型已保留。"
    ),
}
