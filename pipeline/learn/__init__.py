"""Learning from labelled images; what is trained becomes a member like any other.

What lives here: head.py (a head on cached features: start here) and tower.py with finetune/ (an image tower), both on
training_set.py and leaving what trained.py says; seen_unseen.py (classes never trained on), kshot.py (curves over few
images), measure.py (while choosing) and reported.py (afterwards). Imports labelled and the rooms below it.
"""
