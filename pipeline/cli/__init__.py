"""The command line, one verb per make target.

A verb is a file here: its HELP, its `arguments` (if it has its own) and its `run`. The file's name is the verb's. May
import everything; torch only inside functions, so that a mistake in a recipe is told before it is imported.
Start with `submit.py`.
"""
