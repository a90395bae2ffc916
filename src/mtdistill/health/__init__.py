"""Whether a training is well: checks of losses, weights, outputs and data, what they mean, and what is done about it.

`series`, `outputs` and `rows` are pure functions, one per check; `monitor` and the checks
before training call them, `recovery` is the ladder, `journal` writes health.jsonl, `wording` explains.
"""
