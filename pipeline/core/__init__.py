"""Foundations that know nothing of images or models.

`artefacts` is where the cache is decided: start there, then `digests` and `files`. `registry` is how everything that a
recipe names is added; `tables`, `console`, `errors` and `extras` are what a run says. Imports no other room.
"""
