"""What is computed on other machines: a pack of what is missing goes there, one file of features comes back.

What lives here: missing.py (what a pack must hold), pack.py, notebook.py and wheel.py (it is written), needs.py (what
it takes), run.py and there.py (what runs there), features_file.py (what comes back, safe to read), facts.py (what tells
features apart, in words), unpack.py (it is checked and merged). Imports chain and what is below it; run.py only the
standard library. Start with missing.py.
"""
