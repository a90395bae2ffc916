"""Whether a training is well: checks of losses, weights, outputs and data, what they mean, and what is done about it.

`series`, `outputs` and `rows` are pure functions, one per check; `monitor` calls them, `recovery` is the ladder, `journal`
writes health.jsonl, `wording` explains. A new check is one function and one entry in `wording.EXPLANATIONS`.
"""
