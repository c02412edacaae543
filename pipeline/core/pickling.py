"""Python's pickle for `torch.save`, which asks of every object whether it is a tensor's storage: not of a string.

A shard has thousands of ids; asking took longer than all the rest of writing it. The bytes are the same.
"""

import pickle
from typing import Any


class Pickler(pickle.Pickler):
    """torch derives its own from it, with that question."""

    def __init_subclass__(cls) -> None:
        asked = cls.persistent_id

        def persistent_id(self: pickle.Pickler, one: Any) -> Any:
            return None if type(one) is str else asked(self, one)

        cls.persistent_id = persistent_id  # type: ignore[method-assign]
