"""A local page on the cached features: edit prompts and weights, see at once which images change, submit from there.

`server.py` answers the browser and `session.py` is what the page shows: a `Draft` of the recipe files (draft.py) that
edits change (edits.py), evaluated by the chain's own functions in memory (engine.py). The page itself is static/. May
import everything but the command line. Start with session.py.
"""
