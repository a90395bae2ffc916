"""What findings about data, memory, disk and set-up mean. Imported by health.wording; imports health.explanation."""

from mtdistill.health.explanation import Explanation, look_at_data, number, share
from mtdistill.messages import tr

SET_UP = {
    "out_of_memory": Explanation(
        seen=lambda f: tr(
            en=f"The memory of this computer did not suffice for {f.figures['tokens']:.0f} tokens at once.",
            zh=f"本机内存不足以一次处理 {f.figures['tokens']:.0f} 个词元。",
        ),
        meaning=lambda _: tr(en="The result does not depend on the cut.", zh="结果不受批次切分方式的影响。"),
        advice=lambda _: tr(en="Lower training.batch_size.", zh="请减小 training.batch_size。"),
    ),
    "damaged_cache": Explanation(
        seen=lambda f: tr(en="A file of stored teacher states has changed.", zh="某个教师状态缓存文件已被改动。"),
        meaning=lambda _: tr(en="A disk error, or something wrote into it.", zh="磁盘出错，或被其他程序写入。"),
        advice=lambda _: tr(en="Remove it: mtdistill cache remove", zh="请删除它：mtdistill cache remove"),
    ),
    "shuffled_pairs": Explanation(
        seen=lambda f: tr(
            en=f"The teacher finds the given targets no likelier than those of other sentences: {number(f, 'given')} "
            f"against {number(f, 'exchanged')} nats per token.",
            zh=f"在教师模型看来，给定的译文并不比其他句子的译文更合理：每词元 {number(f, 'given')} 对 "
            f"{number(f, 'exchanged')} nat。",
        ),
        meaning=lambda _: tr(
            en="Sources and targets are shuffled against each other, or shifted by a line.",
            zh="原文与译文之间的对应关系被打乱，或错开了一行。",
        ),
        advice=look_at_data,
    ),
    "swapped_languages": Explanation(
        seen=lambda f: tr(
            en=f"The teacher finds sources likelier as translations of targets than the other way round: "
            f"{number(f, 'swapped')} against {number(f, 'given')} nats per token.",
            zh=f"在教师模型看来，把原文当作译文更合理：每词元 {number(f, 'swapped')} 对 {number(f, 'given')} nat。",
        ),
        meaning=lambda _: tr(en="Source and target are swapped.", zh="源语言和目标语言颠倒了。"),
        advice=lambda _: tr(
            en="Exchange data.source_lang and data.target_lang, or the columns of the file.",
            zh="请交换 data.source_lang 与 data.target_lang，或交换文件中的两列。",
        ),
    ),
    "misaligned_labels": Explanation(
        seen=lambda f: tr(
            en=f"The teacher predicts the labels better from {f.figures['offset']:+.0f} tokens away: "
            f"{number(f, 'shifted')} against {number(f, 'given')} nats per token.",
            zh=f"教师模型在错开 {f.figures['offset']:+.0f} 个词元的位置预测标签更准：每词元 {number(f, 'shifted')} 对 "
            f"{number(f, 'given')} nat。",
        ),
        meaning=lambda _: tr(en="The labels are shifted against the decoder's input.", zh="标签与解码器输入错位。"),
        advice=lambda _: tr(
            en="Prepare the data anew; if it was made elsewhere, store targets without a start token.",
            zh="请重新准备数据；如果数据来自其他程序，译文中不应包含起始词元。",
        ),
    ),
    "padding_in_data": Explanation(
        seen=lambda f: tr(
            en=f"{share(f, 'rows')} of the tokenised sentences hold padding or nothing.",
            zh=f"分词后，{share(f, 'rows')} 的句子含有填充符或为空。",
        ),
        meaning=lambda _: tr(en="The student would be trained to write padding.", zh="学生模型会因此学习输出填充符。"),
        advice=lambda _: tr(en="Prepare the data anew, without padding.", zh="请重新准备数据，不要加入填充符。"),
    ),
    "duplicate_data": Explanation(
        seen=lambda f: tr(
            en=f"Only {share(f, 'distinct')} of the training pairs are different from each other.",
            zh=f"训练句对中只有 {share(f, 'distinct')} 互不相同。",
        ),
        meaning=lambda _: tr(
            en="The student learns a few sentences by heart and nothing else.",
            zh="学生模型只会记住少数句子，学不到其他内容。",
        ),
        advice=lambda _: tr(en="Use more varied data.", zh="请使用更多样的数据。"),
    ),
    "many_truncated": Explanation(
        seen=lambda f: tr(
            en=f"{share(f, 'truncated')} of the pairs are cut at {f.figures['tokens']:.0f} tokens.",
            zh=f"{share(f, 'truncated')} 的句对在 {f.figures['tokens']:.0f} 个词元处被截断。",
        ),
        meaning=lambda _: tr(
            en="The student does not learn how such sentences end.", zh="学生模型学不到这些句子如何结束。"
        ),
        advice=lambda _: tr(en="Raise training.max_sequence_length.", zh="请增大 training.max_sequence_length。"),
    ),
    "padding_in_loss": Explanation(
        seen=lambda f: tr(
            en=f"The loss of a batch is {number(f, 'together')}, its sentences one by one give {number(f, 'alone')}.",
            zh=f"一个批次的损失为 {number(f, 'together')}，逐句计算则为 {number(f, 'alone')}。",
        ),
        meaning=lambda _: tr(
            en="Sentences of a batch influence each other, or padding counts.",
            zh="同一批次的句子互相影响，或填充符被计入损失。",
        ),
        advice=lambda _: tr(
            en="This is a fault of mtdistill or of a library: please report it.",
            zh="这是 mtdistill 或某个库的程序缺陷，请反馈。",
        ),
    ),
    "special_tokens_differ": Explanation(
        seen=lambda f: tr(
            en="Teacher and student do not agree on vocabulary size, padding, end or start token.",
            zh="教师模型与学生模型的词表大小、填充符、结束符或起始符不一致。",
        ),
        meaning=lambda _: tr(en="Their distributions cannot be compared.", zh="两者的概率分布无法比较。"),
        advice=lambda _: tr(
            en="Use the teacher's tokenizer and configuration for the student.",
            zh="学生模型应使用教师模型的分词器和配置。",
        ),
    ),
    "little_memory": Explanation(
        seen=lambda f: tr(
            en=f"{f.figures['free_gib']:.1f} GiB of memory are free, training wants about {f.figures['wanted_gib']:.1f}.",
            zh=f"可用内存 {f.figures['free_gib']:.1f} GiB，训练约需 {f.figures['wanted_gib']:.1f} GiB。",
        ),
        meaning=lambda _: tr(
            en="Training may be stopped by the system, or become very slow.", zh="训练可能被系统终止，或变得很慢。"
        ),
        advice=lambda _: tr(
            en="Close other programs, or lower training.batch_size.", zh="请关闭其他程序，或减小 training.batch_size。"
        ),
    ),
    "little_disk": Explanation(
        seen=lambda f: tr(
            en=f"{f.figures['free_mib']:.0f} MiB of disk are free, the run wants about {f.figures['wanted_mib']:.0f}.",
            zh=f"磁盘剩余 {f.figures['free_mib']:.0f} MiB，本次训练约需 {f.figures['wanted_mib']:.0f} MiB。",
        ),
        meaning=lambda _: tr(en="Training would stop at its first checkpoint.", zh="训练会在保存第一个检查点时中断。"),
        advice=lambda _: tr(en="Free some disk, or choose another --output.", zh="请腾出磁盘空间，或换一个 --output。"),
    ),
}
