"""The report card: what was promised, what was measured, and what to do about the difference.

Data first (`ReportCard`, with its JSON), shown second (`render`). Knows nothing of training: a student that was trained
elsewhere, or long ago, gets the same card. Imported by distillation and the command line; imports evaluation, data,
decoding, config, messages.
"""

from mtdistill.report.advice import advice
from mtdistill.report.building import build_report
from mtdistill.report.card import ModelCard, Promise, ReportCard, Sample
from mtdistill.report.rendering import render

__all__ = ["ModelCard", "Promise", "ReportCard", "Sample", "advice", "build_report", "render"]
