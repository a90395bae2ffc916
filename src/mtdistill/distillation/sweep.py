"""A family of students of different sizes, of which one can be picked: they share teacher, data and stored states.

Imported by cli; imports config, report, teacher, distillation.construction, distillation.materials,
distillation.pipeline and distillation.run_folder.
"""

from collections.abc import Mapping, Sequence

from mtdistill.config import RunConfig, apply_overrides
from mtdistill.display import Display
from mtdistill.distillation.construction import plan_student
from mtdistill.distillation.materials import Materials, prepare_materials
from mtdistill.distillation.pipeline import distill
from mtdistill.distillation.run_folder import has_begun, run_folder
from mtdistill.errors import TrainingFailedError
from mtdistill.messages import colon, tr
from mtdistill.report import ReportCard, find_card
from mtdistill.teacher.loading import Teacher


def family(
    base: RunConfig, teacher: Teacher, width_ratios: Sequence[float], decoder_layers: Sequence[int]
) -> list[RunConfig]:
    """Settings of every student, the narrowest and shallowest first; each has a run folder of its own.

    Args:
        base: what they share; its own width and decoder depth are replaced.
        teacher: what they are cut out of.
        width_ratios: student width / teacher width, each in (0, 1]; two that round to one width make one student.
        decoder_layers: decoder depths, each 1 or more; beyond the teacher's they are the teacher's.

    Raises:
        StudentError: one of the shapes does not fit the teacher, or could not be used by others.
    """
    members: dict[str, RunConfig] = {}
    for ratio in sorted(width_ratios):
        for layers in sorted(decoder_layers):
            width = ("student.width=none", "student.width_at_256=none", f"student.width_ratio={ratio}")
            depth = ("student.kept_decoder_layers=none", f"student.decoder_layers={layers}")
            shape = apply_overrides(base, [*width, *depth])
            plan = plan_student(shape, teacher)
            name = f"{base.run_name}-w{plan.width}-d{len(plan.kept_decoder_layers)}"
            members.setdefault(name, apply_overrides(shape, [f"name={name}"]))
    return list(members.values())


def sweep(
    members: Sequence[RunConfig], display: Display | None = None, *, materials: Materials | None = None
) -> Mapping[str, ReportCard]:
    """Distil every member of a family, or go on where an earlier call was stopped; what is done is not done again.

    Args:
        members: from `family`.
        display: where progress goes; None: nowhere.
        materials: from `prepare_materials`, when they are there already.

    Returns:
        The report cards by name. A student whose training failed is among them, with the verdict "failed".

    Raises:
        MtdistillError: as for `distill`; a training that fails is only told, unless none has left a card.
    """
    display = display or Display()
    cards: dict[str, ReportCard] = {}
    for number, config in enumerate(members, start=1):
        run = run_folder(config)
        title = tr(en=f"student {number} of {len(members)}", zh=f"第 {number}/{len(members)} 个学生模型")
        begun = has_begun(config)
        card = find_card(run.path) if begun else None
        if card is None:
            display.say(f"{title}{colon()}{run.path}")
            materials = materials or prepare_materials(config, display)
            try:
                card = distill(config, display, materials=materials, resume=begun).report
            except TrainingFailedError as error:
                card = find_card(run.path)
                if card is None and number == len(members) and not cards:
                    raise
                display.say(str(error))
        else:
            display.say(tr(en=f"{title}: done before, {run.path}", zh=f"{title}：之前已完成，{run.path}"))
        if card is not None:
            cards[config.run_name] = card
    return cards
