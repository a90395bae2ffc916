"""What a run says about its data and its student before it trains.

Imported by distillation.materials, distillation.student_run and distillation.teacher_run; imports data, training and
distillation.construction.
"""

from mtdistill.data.prepared import PreparedData
from mtdistill.distillation.construction import StartedStudent
from mtdistill.messages import listed, tr
from mtdistill.training.engine import Engine


def data_summary(data: PreparedData) -> str:
    """What was read, kept, dropped and why, the splits, and the leakage between them."""
    manifest = data.manifest
    dropped = listed(f"{name} {count}" for name, count in sorted(manifest.dropped.items())) or "0"
    sizes = listed(f"{name} {count}" for name, count in manifest.sizes.items())
    return tr(
        en=f"data {data.source_lang}-{data.target_lang}: {manifest.read} pairs read, {manifest.kept} kept "
        f"(dropped: {dropped}); {sizes}\n"
        f"leakage: {manifest.leaked} held-out sentences in training "
        f"({manifest.removed_from_training} pairs were removed for that)",
        zh=f"数据 {data.source_lang}-{data.target_lang}：读入 {manifest.read} 对，保留 {manifest.kept} 对"
        f"（丢弃：{dropped}）；{sizes}\n"
        f"数据泄漏：训练集中有 {manifest.leaked} 个留出句子（为此移除了 {manifest.removed_from_training} 对）",
    )


def start_summary(student: StartedStudent) -> str:
    """The shape of the student, and how near the teacher it starts."""
    build = student.build
    lines = [tr(en=f"student: {build.blueprint}", zh=f"学生模型：{build.blueprint}")]
    if student.start:
        energy = list(build.kept_energy.values())
        lines.append(
            tr(
                en=f"start ({build.initialisation}): divergence from the teacher {student.start.kl_student:.2f} nats per "
                f"token (random weights: {student.start.kl_random:.2f}); kept energy per site {min(energy):.0%} to "
                f"{max(energy):.0%}",
                zh=f"起点（{build.initialisation}）：与教师模型的散度为每词元 {student.start.kl_student:.2f} nat"
                f"（随机权重为 {student.start.kl_random:.2f}）；各处保留的能量为 {min(energy):.0%} 到 {max(energy):.0%}",
            )
        )
    return "\n".join(lines)


def engine_summary(engine: Engine) -> str:
    """What the updates are computed with."""
    name = "bfloat16" if engine.bfloat16 else "float32"
    return tr(
        en=f"computing in {name}, {engine.parts} part(s) of a batch at a time with {engine.threads_per_part} thread(s) each",
        zh=f"以 {name} 计算，同时处理一个批次的 {engine.parts} 个部分，每个部分使用 {engine.threads_per_part} 个线程",
    )
