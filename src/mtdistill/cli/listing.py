"""`mtdistill presets`: what each preset is for, what it promises, and what it would cost on this machine."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table

from mtdistill.cli.checks import require_output
from mtdistill.cli.quiet import quiet_libraries
from mtdistill.config import ExpectedConfig, RunConfig
from mtdistill.display import Display
from mtdistill.errors import MtdistillError
from mtdistill.messages import tr
from mtdistill.presets import Bilingual, Preset, load_presets


def show_presets(console: Console, *, as_json: bool, calibrate: bool, output: str) -> None:
    """Print all presets; with ``calibrate`` each gets a forecast from a few real updates."""
    require_output(output, to_write=calibrate)
    presets = load_presets()
    forecasts = _forecasts(presets, output, Display(None if as_json else console)) if calibrate else {}
    if as_json:
        console.print_json(json.dumps([_as_dict(p, forecasts.get(p.name)) for p in presets], ensure_ascii=False))
        return
    for preset in presets:
        console.print(_panel(preset, forecasts.get(preset.name)))


def settings_line(config: RunConfig) -> str:
    """The parameters of the contract in one line."""
    t, kd = config.training, config.kd
    temperature, last = f"{kd.temperature:g}", kd.final_temperature
    width = f"{config.student.width_ratio:.0%}" if config.student.width is None else f"{config.student.width}"
    if last is not None:
        temperature = tr(en=f"{temperature} to {last:g}", zh=f"{temperature} 降至 {last:g}")
    return tr(
        en=f"{t.epochs} epochs, batch {t.batch_size}x{t.gradient_accumulation}, learning rate {t.learning_rate:g}, "
        f"max {t.max_sequence_length} tokens, width {width}, T {temperature}, "
        f"alpha {kd.alpha:g}, beta {kd.beta:g}, weight decay {t.weight_decay:g}, {t.data_ratio:.0%} of the data",
        zh=f"{t.epochs} 轮，批大小 {t.batch_size}x{t.gradient_accumulation}，学习率 {t.learning_rate:g}，"
        f"最长 {t.max_sequence_length} 个词元，宽度 {width}，温度 {temperature}，"
        f"alpha {kd.alpha:g}，beta {kd.beta:g}，权重衰减 {t.weight_decay:g}，使用 {t.data_ratio:.0%} 的数据",
    )


def promise_line(expected: ExpectedConfig) -> str:
    """What the preset promises, in one line."""
    return tr(
        en=f"{expected.compression_ratio:g}x smaller, {expected.speed_up:g}x faster, "
        f"{expected.quality_retention:.0%} of the quality, {expected.success_rate:.0%} success, "
        f"within {expected.time_budget_minutes:g} min",
        zh=f"体积为教师的 1/{expected.compression_ratio:g}，速度为教师的 {expected.speed_up:g} 倍，"
        f"质量保留 {expected.quality_retention:.0%}，成功率 {expected.success_rate:.0%}，"
        f"{expected.time_budget_minutes:g} 分钟以内",
    )


def forecast_line(forecast: Mapping[str, float]) -> str:
    """What a run costs here, in one line."""
    return tr(
        en=f"about {forecast['minutes']:.0f} min, {forecast['memory_gib']:.1f} GiB of memory, "
        f"{forecast['disk_mib']:.0f} MiB of disk ({forecast['updates']:.0f} updates, "
        f"{forecast['seconds_per_update']:.2f} s each)",
        zh=f"约 {forecast['minutes']:.0f} 分钟，内存 {forecast['memory_gib']:.1f} GiB，"
        f"磁盘 {forecast['disk_mib']:.0f} MiB（{forecast['updates']:.0f} 次更新，每次 {forecast['seconds_per_update']:.2f} 秒）",
    )


def _panel(preset: Preset, forecast: Mapping[str, float] | None) -> Panel:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")  # Chinese has no spaces to break a line at
    table.add_row(tr(en="for", zh="用途"), str(preset.purpose))
    table.add_row(tr(en="pros", zh="优点"), str(preset.pros))
    table.add_row(tr(en="cons", zh="缺点"), str(preset.cons))
    table.add_row(tr(en="when", zh="何时使用"), str(preset.when_to_use))
    table.add_row(tr(en="settings", zh="参数"), settings_line(preset.config))
    table.add_row(tr(en="expected", zh="预期"), promise_line(preset.config.expected))
    if forecast:
        table.add_row(tr(en="here", zh="本机"), forecast_line(forecast))
    return Panel(Group(table), title=f"{preset.number} {preset.name} · {preset.title}", title_align="left")


def _as_dict(preset: Preset, forecast: Mapping[str, float] | None) -> dict[str, Any]:
    texts = {
        name: {"en": text.en, "zh": text.zh}
        for name in ("title", "purpose", "pros", "cons", "when_to_use")
        if isinstance(text := getattr(preset, name), Bilingual)
    }
    return {
        "name": preset.name,
        "number": preset.number,
        **texts,
        "config": preset.config.model_dump(mode="json"),
        "forecast": dict(forecast) if forecast else None,
    }


def _forecasts(presets: tuple[Preset, ...], output: str, display: Display) -> dict[str, Mapping[str, float]]:
    """One forecast for each preset; none, with the reason, where teacher or data are not there."""
    from mtdistill.distillation.forecast import CALIBRATION_UPDATES, forecast
    from mtdistill.distillation.materials import prepare_materials

    quiet_libraries()
    there = {"output": output}
    try:
        materials = prepare_materials(presets[0].config.model_copy(update=there), Display())
    except MtdistillError as error:
        display.say(tr(en=f"no forecast: {error}", zh=f"无法预测：{error}"))
        return {}
    found: dict[str, Mapping[str, float]] = {}
    label = tr(
        en=f"calibrating ({CALIBRATION_UPDATES} updates each)", zh=f"正在校准（各 {CALIBRATION_UPDATES} 次更新）"
    )
    with display.bar(label, len(presets)) as bar:
        for done, preset in enumerate(presets, start=1):
            found[preset.name] = forecast(preset.config.model_copy(update=there), materials).as_dict()
            bar.advance_to(done)
    return found
