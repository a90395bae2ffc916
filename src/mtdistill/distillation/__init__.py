"""Distillation: the objective, the trainer, the checks before it, and the run from data to report."""
