"""YAML -> frozen, strict objects. Unknown keys, unknown names and wrong values are errors that name the fix.

`Project` (project.py) finds the recipes below one folder; each kind of recipe has its schema in the file of its name,
made of what schema.py offers, and is read by reading.py. Imports core only, and works without torch, so that a mistake
in a recipe is told before anything slow starts. Start with competition.py and ensemble.py.
"""

# ruff: noqa: F401

from .benchmark import Benchmark, BenchmarkPooling
from .competition import Competition, Rules
from .dataset import Dataset
from .ensemble import Ensemble
from .model import HEAD, ModelEntry
from .preprocess import Preprocess
from .project import RESERVED, Project
from .reading import line_of, read_json, read_yaml
from .schema import (
    MAX_PIXELS,
    NAME,
    Finite,
    ListOfNamed,
    Named,
    Recipe,
    Text,
    checked_class_names,
    checked_name,
    unsafe,
)
from .sweep import Sweep
from .training import Training
