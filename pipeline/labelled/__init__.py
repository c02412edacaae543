"""Labelled data sets: what models, prompts and recipes are worth where the right labels are known.

What lives here: task.py (a data set as a task, like a competition: start here), readers/ (a file per format of data),
benchmark.py (models beside each other), prompts_rank.py (with prompt_subsets.py: what each prompt adds), sweep/ (many
variants of a recipe), choosing.py (what may be looked at). Imports chain and the rooms below it; nothing is trained.
"""
