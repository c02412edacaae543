"""One run on many machines, by Ray: shards go to actors that keep their model, and only what they tell comes back.

`pool.py` is all of it. It knows nothing of images or models: what is computed is given as a function of rows. May
import core.
"""
