"""The menu of the guide, and the run of one preset with its questions: choose, see the forecast, confirm, train."""

import shlex
import sys
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from mtdistill.cli.checks import require_run
from mtdistill.cli.listing import forecast_line, promise_line, settings_line
from mtdistill.cli.options import settings_of
from mtdistill.cli.quiet import quiet_libraries
from mtdistill.cli.stdin import read_line
from mtdistill.config import RunConfig, recommendation_warnings
from mtdistill.config.wording import shown
from mtdistill.display import Display, duration
from mtdistill.messages import colon, tr
from mtdistill.presets import RECOMMENDED, load_presets

MAX_ATTEMPTS = 3
EXIT_NO_CHOICE = 2


def run_menu(display: Display) -> int:
    """Show the five presets, let one be chosen, and run it. Returns the exit code."""
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # Chinese has no spaces to break a line at
    for preset in load_presets():
        star = " *" if preset.name == RECOMMENDED else ""
        table.add_row(f"{preset.number}", f"[bold]{preset.name}[/]{star}", f"{preset.title}{colon()}{preset.purpose}")
    display.say(tr(en="mtdistill: choose a preset (* recommended)", zh="mtdistill：请选择预设（* 为推荐）"))
    display.say(table)
    for _ in range(MAX_ATTEMPTS):
        answer = _ask(tr(en="Preset (1-5, q to quit): ", zh="预设（1-5，q 退出）："))
        if answer is None or answer.lower() in ("q", "quit", "exit"):
            break
        if answer in {str(preset.number) for preset in load_presets()}:
            return run_preset(display, answer, [], ask=True)
        display.say(
            tr(
                en=f"Got {shown(answer)}, accepted 1 to 5, or q.",
                zh=f"得到 {shown(answer)}，请输入 1 到 5，或 q 退出。",
            )
        )
    display.say(tr(en="No preset was chosen; nothing was changed.", zh="没有选择预设；未做任何更改。"))
    return EXIT_NO_CHOICE


def run_preset(
    display: Display,
    name: str,
    overrides: Sequence[str],
    *,
    teacher: str | None = None,
    output: str | None = None,
    ask: bool = False,
    resume: bool = False,
    compare_random: bool = False,
) -> int:
    """Run one preset to its report card; with ``ask`` only after a forecast and a yes. Returns the exit code."""
    config = settings_of(name, overrides, teacher=teacher, output=output)
    require_run(config)
    if resume:
        from mtdistill.distillation.run_folder import resume_run

        resume_run(config)  # only to learn at once that there is nothing to resume
    display.say(Text.assemble((config.preset, "bold"), f"{colon()}{settings_line(config)}"))
    display.say(tr(en=f"expected: {promise_line(config.expected)}", zh=f"预期：{promise_line(config.expected)}"))
    for warning in recommendation_warnings(config):
        display.say(Text(warning, style="yellow"))
    display.say(tr(en="loading…", zh="正在加载……"))
    from mtdistill.distillation.forecast import forecast
    from mtdistill.distillation.materials import prepare_materials
    from mtdistill.distillation.pipeline import distill

    quiet_libraries()
    materials = prepare_materials(config, display)
    if ask:
        cost = forecast(config, materials).as_dict()
        display.say(tr(en=f"forecast: {forecast_line(cost)}", zh=f"预测：{forecast_line(cost)}"))
        if cost["minutes"] > config.expected.time_budget_minutes:
            display.say(Text(_shorter(config, cost["minutes"]), style="yellow"))
        if not confirmed(display):
            return EXIT_NO_CHOICE
    result = distill(config, display, materials=materials, resume=resume, compare_random=compare_random)
    from mtdistill.report import render

    display.say(render(result.report))
    command = f"python test_trained_student.py --model_path {shlex.quote(str(result.student_path))}"
    display.say(
        tr(
            en=f"done in {duration(result.seconds)}. Test it again at any time:\n  {command}",
            zh=f"用时 {duration(result.seconds)}。随时可以再次测试：\n  {command}",
        )
    )
    return 0


def confirmed(display: Display) -> bool:
    """Ask whether to start; anything but a yes is told to be a no."""
    answer = _ask(tr(en="Start? (y/N): ", zh="开始训练吗？(y/N)："))
    if answer is not None and answer.lower() in ("y", "yes", "是"):
        return True
    display.say(tr(en="Not started.", zh="没有开始训练。"))
    return False


def _shorter(config: RunConfig, minutes: float) -> str:
    """How to keep to the promised time where the forecast is longer: by fewer epochs, or part of one."""
    budget = config.expected.time_budget_minutes
    epochs = config.training.epochs * budget / minutes
    settings = f"--set training.epochs={max(int(epochs), 1)}"
    if epochs < 1:
        settings += f" --set training.data_ratio={config.training.data_ratio * epochs:.2g}"
    return tr(
        en=f"That is longer than the {budget:g} min of the preset. Less training may do: with "
        f"{settings} added to `mtdistill distill {config.preset}` it ends about in time.",
        zh=f"这超过了该预设的 {budget:g} 分钟。训练少一些也可能足够：在 "
        f"`mtdistill distill {config.preset}` 后加上 {settings}，大约能按时完成。",
    )


def _ask(question: str) -> str | None:
    """An answer without surrounding space; None at the end of input."""
    if sys.stdout is not None:  # closed
        sys.stdout.write(question)
        sys.stdout.flush()
    line = read_line()
    return None if line is None else line.strip()
