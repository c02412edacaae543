"""The one exception that a user's mistake ends in: printed as a line, never as a traceback."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class UserError(ValueError):
    """Something the user wrote or lacks; the message names the offender and the fix."""


class PromptsTooLong(UserError):
    """Prompts that a model would cut; `prompts` are those, so that a caller who knows can say where they stand."""

    def __init__(self, message: str, prompts: list[str]):
        super().__init__(message)
        self.prompts = prompts


@contextlib.contextmanager
def prefixed(where: str) -> Iterator[None]:
    """A UserError of this block, told with the place that it is about in front."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?' for a near miss, else ' Known: a, b, c.' (as the end of an error message)."""
    known = sorted(str(k) for k in known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" Known: {', '.join(known)}." if known else ""
