"""Foundations: errors, cached artefacts, what a run says, tables, registries. Imports nothing of the package."""
