"""Files of the model hub: found in its local cache, or downloaded after saying what, how large and where to.

Nothing here imports torch. HF_HUB_OFFLINE=1 and HF_HOME are respected; an interrupted download is resumed.
"""

import contextlib
import functools
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import constants

from ..core.console import say, tell
from ..core.digests import read_memo, write_memo
from ..core.errors import NotFound, Unavailable, UserError
from ..core.files import atomic_file
from ..recipes import ModelEntry
from . import _preflight, family
from .family import Wanted

SHA256 = re.compile("[0-9a-f]{64}")
ASKED_S = 5  # seconds that the hub has to answer
SMALL_FILES = ("*.json", "*.txt", "*.model")  # configs and tokenizers
# the hub's client and the HTTP libraries it has used; httpx2 and httpcore2 are the newest
CLIENTS = ("httpx", "httpcore", "requests", "huggingface_hub")


def weight_files(entry: ModelEntry) -> tuple[str, ...]:
    """The names that the entry's weights may have in its folder or hub repository, the first that exists."""
    return (entry.file,) if entry.file else family.traits(entry.family, entry).weights


def download_gb(entry: ModelEntry) -> float | None:
    """The size of its weights; by the number of parameters where it is not stated: most repositories hold float32."""
    return entry.download_gb or (entry.parameters * 4 / 1000 if entry.parameters else None)


def cached(entry: ModelEntry) -> Path | None:
    """The entry's weights in the local cache of the hub, if they are there; nothing is asked of the network."""
    return _in_cache(entry.hub, weight_files(entry), entry.revision)


def _folder(repo: str) -> Path:
    """Where the local cache of the hub keeps a repository."""
    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _in_cache(repo: str, files: Sequence[str], revision: str | None) -> Path | None:
    """The first of several files of a repository that the local cache has."""
    if not _folder(repo).is_dir():
        return None  # without the tenth of a second that it takes to import what follows
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repo, file, revision=revision) for file in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def weights(wanted: Wanted, repo: str | None = None, file: str | None = None, revision: str | None = None) -> Path:
    """The entry's weights: its own file, the first in its folder that the family knows, or those of the hub.

    `repo` and `file` are what the entry may override. UserError when there are none.
    """
    entry, path = wanted.entry, wanted.path
    files = (entry.file or file,) if entry.file or file else weight_files(entry)
    if path is None:
        return fetch(wanted.name, entry.hub or repo, files, revision or entry.revision, download_gb(entry))
    if not path.is_dir():
        return path
    files = tuple(dict.fromkeys((*files, "model.safetensors")))
    there = [path / one for one in files if (path / one).is_file()]
    if not there:
        raise NotFound(f"{wanted.where}: no weights in {path}; one of {', '.join(files)} is needed")
    return there[0]


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
    if not entry.hub:
        return None
    folder = _folder(entry.hub)
    try:
        return (folder / "refs" / (entry.revision or "main")).read_text().strip()
    except OSError:
        return None


@functools.cache
def _say_moved(key: str, first: str, commit: str) -> None:
    tell(
        f"hub        {key} moved from {first[:12]} to {commit[:12]}: its features are computed again; "
        f"'revision: {first}' keeps the old ones",
        " " * 11,
    )


def stated(path: Path, memo: Path) -> str | None:
    """The SHA-256 that the hub states of a file in its local cache, None where it is not known.

    The hub's client names what it downloads after it; where links are not possible the hub is asked, if it can be. Once
    learnt it is kept in `memo`, so that a file which is damaged, exchanged or relinked later is still compared with it.
    """
    known, key = read_memo(memo), _key(path)
    if key not in known:
        found = path.resolve().name if path.is_symlink() else _asked(path)
        known[key] = found if SHA256.fullmatch(found) else ""
        write_memo(memo, known)
    return known[key] or None


def _key(path: Path) -> str:
    """'models--account--name/snapshots/commit/file' of a file in the hub's local cache."""
    cache = Path(constants.HF_HUB_CACHE)
    return path.relative_to(cache).as_posix() if path.is_relative_to(cache) else path.as_posix()


def _asked(path: Path) -> str:
    """What the hub calls the content of a file, "" where it cannot be asked."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    folder, _, rest = _key(path).partition("/snapshots/")
    commit, _, file = rest.partition("/")
    if constants.HF_HUB_OFFLINE or not file:
        return ""
    try:
        url = hf_hub_url(folder.removeprefix("models--").replace("--", "/"), file, revision=commit)
        return get_hf_file_metadata(url, timeout=ASKED_S).etag or ""
    except Exception:  # the file is here: whatever keeps the hub from answering is no reason not to use it
        return ""


def fetch(name: str, repo: str, files: str | Sequence[str], revision: str | None, gb: float | None = None) -> Path:
    """The local path of a hub file (of several names, the first that exists), downloaded if need be.

    UserError, in one line: no room, offline, no access, no such file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    files = (files,) if isinstance(files, str) else files
    known = _in_cache(repo, files, revision)
    if known:
        return known
    for file in files:
        with _explained(name, repo, f"{file} ({f'{gb:.3g} GB' if gb else 'size unknown'})"):
            try:
                planned = hf_hub_download(repo, file, revision=revision, dry_run=True)
            except EntryNotFoundError as error:
                if file == files[-1] or isinstance(error, LocalEntryNotFoundError):
                    raise
                continue
            return _download(name, repo, [planned], revision)[0]
    raise AssertionError("the last file either exists or is an error")


def fetch_all(name: str, repo: str, files: Sequence[str], commit: str) -> list[Path]:
    """The local paths of files of a repository; those that are missing are downloaded once all of them fit."""
    from huggingface_hub import hf_hub_download

    with _explained(name, repo, f"{files[0]}{' ...' if files[1:] else ''}"):
        planned = [hf_hub_download(repo, file, revision=commit, dry_run=True) for file in files]
        return _download(name, repo, planned, commit)


def _download(name: str, repo: str, planned: list, revision: str | None) -> list[Path]:
    """What a dry run of the hub's client said, done."""
    from huggingface_hub import hf_hub_download

    missing = [one for one in planned if one.will_download]
    elsewhere = "keep the hub's cache on another disk: HF_HOME=folder"
    _preflight.disk(name, Path(constants.HF_HUB_CACHE), sum(one.file_size for one in missing), elsewhere)
    for one in missing:
        to = f"{one.file_size / 1e9:.1f} GB to {constants.HF_HUB_CACHE}"
        say("download", name, f"{repo}/{one.filename}, {to}")
    return [Path(hf_hub_download(repo, one.filename, revision=revision)) for one in planned]


@contextlib.contextmanager
def _explained(name: str, repo: str, what: str) -> Iterator[None]:
    """Errors of the hub's client and of the HTTP library below it, as one line that says what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if not isinstance(error, OSError) and not library.startswith(CLIENTS):
            raise
        fix = "Bring the file and name it in models.local.yaml ('weights: path'), or run where the hub can be reached"
        raise Unavailable(
            f"model {name} is not on disk and could not be downloaded: {repo}/{what} to "
            f"{constants.HF_HUB_CACHE}. {_reason(error, repo)}. {fix}"
        ) from None


def _reason(error: Exception, repo: str) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE=1 forbids downloads"
    if isinstance(error, GatedRepoError):
        return f"It is gated: accept its terms on https://huggingface.co/{repo} and log in with 'hf auth login'"
    if isinstance(error, RepositoryNotFoundError):
        return "The hub has no such repository, or it is private"
    error = error.__cause__ or error  # of "not in the local cache, and the hub cannot be asked" the second half
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


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
