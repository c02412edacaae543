"""The one exception that a user's mistake ends in: printed as a line, never as a traceback."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class UserError(ValueError):
    """Something the user wrote that cannot be meant; the message names the offender and the fix.

    The classes below are its kinds. `code` is a kind's word, for programs: it stays when a message is worded better.
    """

    code = "invalid"


class NotFound(UserError):
    """What is named is not there: a file, a folder, an entry, a column, any name that nothing is known by."""

    code = "not-found"


class Exists(UserError):
    """It is there already, and is not overwritten, shadowed or sent again."""

    code = "exists"


class Mismatch(UserError):
    """Two things, each right by itself, that do not fit: ids and sample, recipe and model, head and classes, ..."""

    code = "mismatch"


class Damaged(UserError):
    """Something that cannot be read, or holds what it must not, such as values that are not finite."""

    code = "damaged"


class Forbidden(UserError):
    """Not allowed: by a competition's rules or its service, for the split that is reported, code in a file."""

    code = "forbidden"


class Unavailable(UserError):
    """What a run needs and cannot have now: a package, a device, memory, room on a disk, the network, a service."""

    code = "unavailable"


class Changed(UserError):
    """Something was replaced or removed while the run used it; nothing of it is kept."""

    code = "changed"


KINDS: dict[str, type[UserError]] = {
    kind.code: kind for kind in (UserError, NotFound, Exists, Mismatch, Damaged, Forbidden, Unavailable, Changed)
}


class PromptsTooLong(Mismatch):
    """Prompts that a model would cut; `prompts` are those, so that a caller who knows can say where they stand."""

    def __init__(self, message: str, prompts: list[str]):
        super().__init__(message)
        self.prompts = prompts


@contextlib.contextmanager
def prefixed(where: str) -> Iterator[None]:
    """A UserError of this block, told with the place that it is about in front; its kind stays."""
    try:
        yield
    except UserError as error:
        error.args = (f"{where}: {error}",)
        raise


def joint_kind(errors: Iterable[UserError]) -> type[UserError]:
    """The kind of one error that tells all of these: theirs, if they are of one."""
    codes = {error.code for error in errors}
    return KINDS[codes.pop()] if len(codes) == 1 else UserError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?' for a near miss, else ' Known: a, b, c.' (as the end of an error message)."""
    known = sorted(str(k) for k in known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" Known: {', '.join(known)}." if known else ""
