"""The report card: what was promised, what was measured, and what to do about the difference.

Data first (`ReportCard`, with its JSON), shown second: on a terminal (`render`), as a page (`write_html`), beside other
students (`render_comparison`, `write_comparison_html`). Knows nothing of training: a student that was trained
elsewhere, or long ago, gets the same card. Imported by cli, distillation and export; imports config, data, decoding,
evaluation, health and output_checks.
"""

from mtdistill.report.advice import advice
from mtdistill.report.building import Contestant, TestSet, build_report
from mtdistill.report.card import BeamQuality, CometScores, ModelCard, Promise, ReportCard, Sample, WorstSample
from mtdistill.report.comparison import render_comparison, write_comparison_html
from mtdistill.report.duels import Duel
from mtdistill.report.finding import card_name, find_card, read_cards
from mtdistill.report.html import write_html
from mtdistill.report.rendering import render

__all__ = [
    "BeamQuality",
    "CometScores",
    "Contestant",
    "Duel",
    "ModelCard",
    "Promise",
    "ReportCard",
    "Sample",
    "TestSet",
    "WorstSample",
    "advice",
    "build_report",
    "card_name",
    "find_card",
    "read_cards",
    "render",
    "render_comparison",
    "write_comparison_html",
    "write_html",
]
