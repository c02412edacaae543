"""What was read lately, so that neighbours of an image come without reading again."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any


class Recent:
    """The last `keep` results of reading; who asks for one that is on its way waits for it."""

    def __init__(self, keep: int):
        self.keep, self.lock, self.kept = keep, threading.Lock(), OrderedDict[Hashable, Future]()

    def get(self, key: Hashable, find: Callable[[], Any]) -> Any:
        with self.lock:
            known = self.kept.get(key)
            result = known or Future()
            self.kept[key] = result
            self.kept.move_to_end(key)
            while len(self.kept) > self.keep:
                self.kept.popitem(last=False)
        if known is None:
            try:
                result.set_result(find())
            except BaseException as error:
                with self.lock:
                    self.kept.pop(key, None)  # the next to ask tries again
                result.set_exception(error)
        return result.result()
