"""Whether a checkpoint is right: loaded by its library's own documented way and by ours, and compared.

`run.py` is the whole of it and the place to start; library.py has the documented ways, a function per family, checks.py
what is compared. Imports chain and the rooms below it.
"""
