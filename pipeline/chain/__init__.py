"""The main job: images and prompts to a checked CSV, a declared stage after the other.

Start with `main_job.py`, the whole of it on one screen; then `stage.py` (what a stage is, and the one runner) and
`task.py` (what is worked on). `preprocess`, `features`, `text`, `probs`, `ensemble` and `threshold` are the stages in
their order; `classes` decides, `csv_format`, `ledger`, `provenance` and `suspicions` write. May import core, recipes,
maths, cluster, images and models.
"""
