"""Files of the model hub: found in its local cache, or downloaded after saying what, how large and where to."""

from pathlib import Path

from ..errors import UserError


def fetch(name: str, repo: str, file: str, revision: str | None, gb: float | None) -> Path:
    """The local path of a hub file; UserError says what would be downloaded when it cannot be."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    size = f"{gb:g} GB" if gb else "size unknown"
    what = f"{repo}/{file} ({size}) to {constants.HF_HUB_CACHE}"
    try:
        return Path(hf_hub_download(repo, file, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    print(f"download   {name}: {what}", flush=True)
    try:
        return Path(hf_hub_download(repo, file, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] or type(error).__name__
        raise UserError(
            f"model {name} is not on disk and could not be downloaded: {what}. {reason} "
            f"Bring the file and name it in models.local.yaml ('weights: path'), or run where the hub can be reached."
        ) from None
