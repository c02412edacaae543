"""The former place of what is in `artefacts`, `digests` and `files` now."""

from .artefacts import *  # noqa: F403
from .digests import *  # noqa: F403
from .files import *  # noqa: F403
