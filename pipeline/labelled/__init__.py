"""Labelled data sets: readers, benchmarks, prompt ranking, sweeps."""
