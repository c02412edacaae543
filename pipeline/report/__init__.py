"""Pages and tables about results: submissions, ensembles, benchmarks, training, the images themselves.

What is known about some labels is collected into a `Result` (result.py, collect.py), whatever it came from; sections/
shows it, page/ makes one HTML file of sections. May import everything but the command line. Start with submission.py.
"""
