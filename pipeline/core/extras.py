"""Optional packages: what a verb needs beyond the run-time requirements, told before anything is computed."""

import importlib.util
import sys

from .errors import UserError

PACKAGES = {
    "jinja2": "Jinja2",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "openTSNE": "openTSNE",
}


def need_packages(verb: str) -> None:
    """UserError with the pip command when a package of requirements-report.txt is missing."""
    missing = [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(
            f"make {verb} needs {', '.join(missing)}. "
            f"Install: {sys.executable} -m pip install -r requirements-report.txt"
        )
