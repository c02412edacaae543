"""Draws the map beside the page: at once a quick one, then the one that is kept."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..chain import ensemble, features, text
from ..chain.columns import Columns
from ..chain.prompt_weights import weighted
from ..core.errors import UserError
from . import plane
from .hub import Hub
from .session import Session


async def draw(hub: Hub) -> None:
    """Give the session its points and send them to all tabs."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.run_in_executor(hub.thread, _wanted, hub.session)
        if found is None:
            return
        path, member, parts, texts = found
        known = plane.load(path)
        first = known if known is not None else await aside(plane.quick, parts, texts)
        await _show(hub, first)
        if known is None and sum(map(len, parts)) <= plane.MOST:
            await _show(hub, await aside(plane.drawn, path, member, parts, texts))
    except (UserError, OSError, RuntimeError) as error:
        print(f"workbench  map: {error}", flush=True)


async def aside(function: Callable, *arguments):
    """What a function gives, run in a thread that ends with the process: Ctrl-C does not wait for a map."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def tell(result, error) -> None:
        if not done.done():
            done.set_result(result) if error is None else done.set_exception(error)

    def work() -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # of this thread: edits come first
            found = function(*arguments), None
        except Exception as error:
            found = None, error
        with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(tell, *found)

    threading.Thread(target=work, daemon=True).start()
    return await done


async def _show(hub: Hub, points: np.ndarray) -> None:
    hub.session.points = points
    for tab in hub.awake:
        await tab.put(hub.map_frame())


def _wanted(session: Session) -> tuple | None:
    """Where the map is kept, and what it is of: the member that weighs most of those with a text tower."""
    seen, task = session.seen, session.task
    weights = {m: weight for m, weight in ensemble.members(seen.recipe).items() if not m.is_head}
    if not weights:
        return None
    member = max(weights, key=weights.__getitem__)
    prompts = weighted(task, seen.recipe, member)
    texts_CD = Columns.of(prompts).class_texts(text.of_prompts(task, member.model, prompts)[0].features)
    values = session.engine.features(task, member)
    parts = [features.one_vector(part) for _, _, part in values.parts]
    digest = plane.digest(member, features.stage(task, member).digest, task.class_names)
    return Path(session.folder / f"map-{digest}.npy"), member, parts, texts_CD
