"""Prompt sets that a language model writes: descriptions of a competition's own classes.

What lives here: write.py (questions, progress, the files: start here), endpoint.py (the only network there is: a
question in, text out), sieve.py (what of that text becomes a prompt). Imports recipes and core. A model's text is
never trusted, and the key to it is never printed, logged or stored.
"""
