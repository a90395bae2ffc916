"""What findings during training mean: losses, gradients, weights, translations.

Imported by health.wording; imports output_checks and health.explanation.
"""

from mtdistill.health.explanation import Explanation, lower_rate, more_training, number, share
from mtdistill.messages import tr
from mtdistill.output_checks import CHECKS


def _output_check(name: str, en: str, zh: str) -> Explanation:
    return Explanation(
        seen=lambda f: tr(
            en=f"{share(f, 'rate')} of the validation translations {en} (teacher: {share(f, 'teacher_rate')}).",
            zh=f"{share(f, 'rate')} 的验证译文{zh}（教师模型：{share(f, 'teacher_rate')}）。",
        ),
        meaning=lambda _: tr(
            en="Early in training this can pass; later it means that the student has not learned when to stop or what "
            "to look at.",
            zh="训练初期可能会自行消失；后期则说明学生模型没有学会何时停止或该关注哪里。",
        ),
        advice=more_training,
    )


_CHECK_WORDS = {
    "empty": ("are empty", "为空"),
    "failure_marker": ("contain the failure marker", "含有失败标记"),
    "length_cap": ("did not end by themselves", "没有自行结束"),
    "loop": ("repeat themselves", "不断重复"),
    "copy": ("are copies of the source", "照抄原文"),
    "wrong_script": ("are in the wrong script", "文字系统不符"),
    "same_output": ("say the same for different sources", "对不同的原文给出相同的内容"),
}

TRAINING = {
    **{f"output_{name}": _output_check(name, *_CHECK_WORDS[name]) for name in CHECKS},
    "non_finite_loss": Explanation(
        seen=lambda f: tr(
            en=f"The loss of update {f.update} is {f.figures['value']}.",
            zh=f"第 {f.update} 次更新的损失为 {f.figures['value']}。",
        ),
        meaning=lambda _: tr(
            en="Usually a damaged batch or teacher state, or a learning rate that is too high.",
            zh="通常是某个批次或教师状态已损坏，或学习率过高。",
        ),
        advice=lower_rate,
    ),
    "non_finite_gradient": Explanation(
        seen=lambda f: tr(
            en=f"The gradient of update {f.update} is not finite, although its loss is.",
            zh=f"第 {f.update} 次更新的梯度不是有限值，而损失是有限值。",
        ),
        meaning=lambda _: tr(
            en="Usually weights that have grown too large for the number format.",
            zh="通常是权重过大，超出了数值格式的范围。",
        ),
        advice=lower_rate,
    ),
    "gradient_explosion": Explanation(
        seen=lambda f: tr(
            en=f"The gradient of update {f.update} is {number(f, 'norm')}, usual is {number(f, 'usual')}.",
            zh=f"第 {f.update} 次更新的梯度为 {number(f, 'norm')}，平时为 {number(f, 'usual')}。",
        ),
        meaning=lambda _: tr(
            en="One such update can undo much of what was learned. Usually a bad pair, or a learning rate that is too high.",
            zh="一次这样的更新就可能毁掉已学到的内容。通常是某个句对有问题，或学习率过高。",
        ),
        advice=lower_rate,
    ),
    "loss_spike": Explanation(
        seen=lambda f: tr(
            en=f"The loss jumped to {number(f, 'loss')} at update {f.update}; usual is {number(f, 'usual')}.",
            zh=f"第 {f.update} 次更新时损失跳到 {number(f, 'loss')}，平时为 {number(f, 'usual')}。",
        ),
        meaning=lambda _: tr(
            en="Usually it comes back within some tens of updates; it is watched.",
            zh="通常几十次更新之内会恢复；正在持续观察。",
        ),
        advice=lower_rate,
    ),
    "loss_diverging": Explanation(
        seen=lambda f: tr(
            en=f"The loss has risen to {number(f, 'loss')} and stays there; it had been {number(f, 'lowest')}.",
            zh=f"损失升到 {number(f, 'loss')} 且没有回落；此前曾达到 {number(f, 'lowest')}。",
        ),
        meaning=lambda _: tr(en="The learning rate is too high for this student.", zh="学习率对该学生模型来说过高。"),
        advice=lower_rate,
    ),
    "loss_oscillating": Explanation(
        seen=lambda f: tr(
            en=f"The loss swings by {share(f, 'swing')} from update to update, before by {share(f, 'usual')}, and does "
            "not fall.",
            zh=f"损失在各次更新之间波动 {share(f, 'swing')}，此前为 {share(f, 'usual')}，而且没有下降。",
        ),
        meaning=lambda _: tr(
            en="The learning rate is too high, or the batches are too small.", zh="学习率过高，或批次太小。"
        ),
        advice=lambda _: tr(
            en="Lower training.learning_rate, or raise training.gradient_accumulation.",
            zh="请降低 training.learning_rate，或增大 training.gradient_accumulation。",
        ),
    ),
    "loss_not_falling": Explanation(
        seen=lambda f: tr(
            en=f"The loss is {number(f, 'loss')} and was {number(f, 'start')} at the start.",
            zh=f"损失为 {number(f, 'loss')}，开始时为 {number(f, 'start')}。",
        ),
        meaning=lambda _: tr(
            en="Nothing is learned: the learning rate is far too low or too high, or sources and targets do not belong "
            "together.",
            zh="没有学到任何东西：学习率过低或过高，或原文与译文不对应。",
        ),
        advice=lambda _: tr(
            en="Check that the pairs are translations of each other; then try a third and three times the learning rate.",
            zh="请先检查句对是否互为翻译，再分别尝试三分之一和三倍的学习率。",
        ),
    ),
    "initialisation_destroyed": Explanation(
        seen=lambda f: tr(
            en=f"Already at update {f.update} the weights have moved by {number(f, 'drift')} times their own size.",
            zh=f"第 {f.update} 次更新时，权重的变化已达其自身大小的 {number(f, 'drift')} 倍。",
        ),
        meaning=lambda _: tr(
            en="What the student got from its teacher is gone. The learning rate is too high.",
            zh="学生模型从教师模型继承的内容已经丢失。学习率过高。",
        ),
        advice=lower_rate,
    ),
    "dead_updates": Explanation(
        seen=lambda f: tr(
            en=f"{f.figures['updates']:.0f} updates have moved the weights by {f.figures['change']:.1e} of their size.",
            zh=f"{f.figures['updates']:.0f} 次更新只让权重变化了其大小的 {f.figures['change']:.1e}。",
        ),
        meaning=lambda _: tr(
            en="Gradients are lost on the way, or the state of the optimizer is damaged.",
            zh="梯度在途中丢失，或优化器的状态已损坏。",
        ),
        advice=lambda _: tr(
            en="Raise training.learning_rate if it is very low; otherwise start from an earlier checkpoint.",
            zh="如果 training.learning_rate 很低，请调高；否则请从更早的检查点开始。",
        ),
    ),
    "overfitting": Explanation(
        seen=lambda f: tr(
            en=f"The validation loss has risen from {number(f, 'best')} to {number(f, 'validation_loss')} while the "
            f"training loss fell to {number(f, 'training_loss')}.",
            zh=f"验证损失从 {number(f, 'best')} 升到 {number(f, 'validation_loss')}，而训练损失降到 "
            f"{number(f, 'training_loss')}。",
        ),
        meaning=lambda _: tr(
            en="The student learns the training text by heart. The best student is kept, so nothing is lost.",
            zh="学生模型在死记训练文本。最好的学生模型已保存，不会丢失。",
        ),
        advice=lambda _: tr(
            en="More data, fewer epochs, or a larger kd.alpha.", zh="请增加数据、减少轮数，或增大 kd.alpha。"
        ),
    ),
    "unbalanced_gradients": Explanation(
        seen=lambda f: tr(
            en=f"The gradient of the teacher's part is {number(f, 'kd_norm')}, that of the gold text "
            f"{number(f, 'gold_norm')}.",
            zh=f"来自教师的梯度为 {number(f, 'kd_norm')}，来自标准译文的梯度为 {number(f, 'gold_norm')}。",
        ),
        meaning=lambda _: tr(
            en="The smaller one has no say. Usually kd.alpha and kd.beta are too far apart.",
            zh="较小的一方不起作用。通常是 kd.alpha 与 kd.beta 相差太大。",
        ),
        advice=lambda _: tr(
            en="Bring kd.alpha and kd.beta closer together, or use a kd.temperature from 2 to 5.",
            zh="请让 kd.alpha 与 kd.beta 更接近，或将 kd.temperature 设在 2 到 5 之间。",
        ),
    ),
    "hard_targets": Explanation(
        seen=lambda f: tr(
            en=f"At this temperature the teacher's distributions have {number(f, 'softened')} nats of entropy per token, "
            f"untouched {number(f, 'plain')}.",
            zh=f"在这一温度下，教师分布每个词元的熵为 {number(f, 'softened')} nat，原始为 {number(f, 'plain')}。",
        ),
        meaning=lambda _: tr(
            en="Only the most likely word is left of them, so that they say no more than a label.",
            zh="只剩下最可能的那个词，提供的信息不比标签多。",
        ),
        advice=lambda _: tr(en="Use a kd.temperature from 2 to 5.", zh="请将 kd.temperature 设在 2 到 5 之间。"),
    ),
    "entropy_collapse": Explanation(
        seen=lambda f: tr(
            en=f"The student's entropy is {number(f, 'student_entropy')} nats per token, the teacher's "
            f"{number(f, 'teacher_entropy')}.",
            zh=f"学生模型每个词元的熵为 {number(f, 'student_entropy')} nat，教师模型为 {number(f, 'teacher_entropy')}。",
        ),
        meaning=lambda _: tr(
            en="The student is sure of itself where its teacher is not, which comes before repeated outputs.",
            zh="在教师模型不确定的地方，学生模型过于自信，随后往往会出现重复输出。",
        ),
        advice=lambda _: tr(
            en="Raise kd.temperature, kd.alpha or kd.label_smoothing.",
            zh="请提高 kd.temperature、kd.alpha 或 kd.label_smoothing。",
        ),
    ),
    "success_under_half": Explanation(
        seen=lambda f: tr(
            en=f"Only {share(f, 'rate')} of the validation translations are fit to be shown.",
            zh=f"只有 {share(f, 'rate')} 的验证译文可用。",
        ),
        meaning=lambda _: tr(
            en="Normal while a student from random weights begins; otherwise training does not work.",
            zh="从随机权重开始时属正常现象；否则说明训练不正常。",
        ),
        advice=lower_rate,
    ),
    "one_output": Explanation(
        seen=lambda f: tr(
            en=f"{share(f, 'share')} of the validation translations are the same text.",
            zh=f"{share(f, 'share')} 的验证译文是同一段文字。",
        ),
        meaning=lambda _: tr(
            en="The student does not look at the source. Too high a learning rate, or targets that do not belong to "
            "their sources.",
            zh="学生模型没有关注原文。学习率过高，或译文与原文不对应。",
        ),
        advice=lower_rate,
    ),
    "one_token": Explanation(
        seen=lambda f: tr(
            en=f"{share(f, 'share')} of the validation translations repeat a single word.",
            zh=f"{share(f, 'share')} 的验证译文只重复同一个词。",
        ),
        meaning=lambda _: tr(
            en="The decoder has collapsed. The learning rate is too high, or labels are shifted against the input.",
            zh="解码器已崩溃。学习率过高，或标签与输入错位。",
        ),
        advice=lower_rate,
    ),
}
