"""Tensors and numbers only: nothing here reads a file, knows a recipe or loads a model. Imports core.

zeroshot.py is the algorithm of the whole project (start there), refine/ the steps that may follow it, prompt_scores.py
weighs prompts without labels; metrics.py and stacking.py, without torch, measure what came out.
"""
