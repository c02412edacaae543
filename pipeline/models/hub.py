"""Files of the model hub: found in its local cache, or downloaded after saying what, how large and where to.

Nothing here imports torch. HF_HUB_OFFLINE=1 and HF_HOME are respected; an interrupted download is resumed.
"""

import contextlib
import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..core.digests import read_memo, write_memo
from ..core.errors import UserError
from ..core.files import atomic_file
from ..recipes import ModelEntry
from . import _preflight

# what the weights are called in a repository of each family, the first that exists
WEIGHTS = {
    "open_clip": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "timm": ("model.safetensors", "pytorch_model.bin"),
    "transformers": (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ),
}
SMALL_FILES = ("*.json", "*.txt", "*.model")  # configs and tokenizers


def weight_files(entry: ModelEntry) -> tuple[str, ...]:
    """The names that the entry's weights may have in its hub repository."""
    return (entry.file,) if entry.file else WEIGHTS.get(entry.family, ())


def cached(entry: ModelEntry) -> Path | None:
    """The entry's weights in the local cache of the hub, if they are there; nothing is asked of the network."""
    from huggingface_hub import try_to_load_from_cache

    for file in weight_files(entry):
        path = try_to_load_from_cache(entry.hub, file, revision=entry.revision)
        if isinstance(path, str):
            return Path(path)
    return None


def moved_to(entry: ModelEntry, root: Path) -> str | None:
    """The commit that the entry's branch now has in the hub's local cache, if another one was used here before.

    None where nothing moved, and where nothing can: `revision` is a commit, or the hub's cache knows no branch. The
    first commit that is seen is remembered in cache/commits.json.
    """
    commit = _local_commit(entry)
    if not commit:
        return None
    memo, key = root / "cache" / "commits.json", f"{entry.hub}@{entry.revision or 'main'}"
    known = read_memo(memo)
    if key not in known:
        write_memo(memo, {**known, key: commit})
    first = known.get(key, commit)
    if first == commit:
        return None
    _say_moved(key, first, commit)
    return commit


def _local_commit(entry: ModelEntry) -> str | None:
    from huggingface_hub import constants

    if not entry.hub:
        return None
    folder = Path(constants.HF_HUB_CACHE) / f"models--{entry.hub.replace('/', '--')}"
    try:
        return (folder / "refs" / (entry.revision or "main")).read_text().strip()
    except OSError:
        return None


@functools.cache
def _say_moved(key: str, first: str, commit: str) -> None:
    print(
        f"hub        {key} moved from {first[:12]} to {commit[:12]}: its features are computed again; "
        f"'revision: {first}' keeps the old ones",
        flush=True,
    )


def fetch(name: str, repo: str, file: str | tuple[str, ...], revision: str | None, gb: float | None) -> Path:
    """The local path of a hub file (of several names, the first that exists), downloaded if need be.

    UserError, in one line: no room, offline, no access, no such file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    files = (file,) if isinstance(file, str) else file
    for candidate in files:
        try:
            return Path(hf_hub_download(repo, candidate, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    for candidate in files:
        path = _download(name, repo, candidate, revision, gb, last=candidate == files[-1])
        if path:
            return path
    raise AssertionError("the last candidate either exists or is an error")


def _download(name: str, repo: str, file: str, revision: str | None, gb: float | None, last: bool) -> Path | None:
    """Download one file; None when the repository has no such file and it is not the last to try."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with _explained(name, repo, f"{file} ({f'{gb:g} GB' if gb else 'size unknown'})"):
        try:
            size = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision)).size or 0
        except EntryNotFoundError as error:
            if last or isinstance(error, LocalEntryNotFoundError):
                raise
            return None
        _preflight.disk(name, Path(constants.HF_HUB_CACHE), size)
        print(f"download   {name}: {repo}/{file}, {size / 1e9:.1f} GB to {constants.HF_HUB_CACHE}", flush=True)
        return Path(hf_hub_download(repo, file, revision=revision))


@contextlib.contextmanager
def _explained(name: str, repo: str, what: str) -> Iterator[None]:
    """Errors of the hub's client and of the HTTP library below it, as one line that says what to do."""
    from huggingface_hub import constants

    try:
        yield
    except UserError:
        raise
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        # the hub's client and the HTTP libraries it has used; httpx2 and httpcore2 are the newest
        clients = ("httpx", "httpcore", "requests", "huggingface_hub")
        if not isinstance(error, OSError) and not library.startswith(clients):
            raise
        fix = "Bring the file and name it in models.local.yaml ('weights: path'), or run where the hub can be reached"
        raise UserError(
            f"model {name} is not on disk and could not be downloaded: {repo}/{what} to "
            f"{constants.HF_HUB_CACHE}. {_reason(error, repo)}. {fix}"
        ) from None


def _reason(error: Exception, repo: str) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE=1 forbids downloads"
    if isinstance(error, GatedRepoError):
        return f"It is gated: accept its terms on https://huggingface.co/{repo} and log in with 'hf auth login'"
    if isinstance(error, RepositoryNotFoundError):
        return "The hub has no such repository, or it is private"
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def fetch_shards(name: str, repo: str, index: Path, revision: str | None) -> None:
    """Fetch the shards beside an index.json, after making sure that all of those that are missing fit."""
    from huggingface_hub import constants

    content = json.loads(index.read_text())
    shards = sorted(set(content["weight_map"].values()))
    missing = [shard for shard in shards if not (index.parent / shard).exists()]
    total = content.get("metadata", {}).get("total_size", 0)
    _preflight.disk(name, Path(constants.HF_HUB_CACHE), total * len(missing) / len(shards))
    for shard in missing:
        fetch(name, repo, shard, revision, None)


def fetch_folder(name: str, entry: ModelEntry) -> Path:
    """The local folder of a repository with its configs and tokenizer; the weights come with `fetch`."""
    from huggingface_hub import snapshot_download

    config = fetch(name, entry.hub, "config.json", entry.revision, None)
    commit = config.parent.name  # so that all files are of one state of the repository
    with _explained(name, entry.hub, "tokenizer and configs"):
        return Path(snapshot_download(entry.hub, revision=commit, allow_patterns=SMALL_FILES))


def copy_small_files(source: Path, target: Path) -> None:
    """Configs and tokenizer files of a checkpoint's folder, for one with other weights."""
    for file in sorted(path for pattern in SMALL_FILES for path in source.glob(pattern)):
        if not file.name.endswith(".index.json"):  # it names shards of the old weights
            with atomic_file(target / file.name) as temporary:
                shutil.copyfile(file, temporary)
