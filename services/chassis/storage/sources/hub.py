"""Downloads snapshots of public Hugging Face repositories, without pickles and code, bounded in size and time."""

import os
import time
from pathlib import Path
from typing import Any, Literal

from services.chassis.storage.durable import mark_used
from services.chassis.storage.sources.allowed import AllowedSources, Refusal
from services.chassis.storage.sources.download import too_large, too_slow
from services.chassis.storage.sources.reaching import SourceRefused
from services.chassis.storage.stores import writing

Repository = Literal["model", "dataset"]

_CODE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.msgpack", "*.h5", "*.onnx", "*.py")
"""Files that are not fetched: pickles and code can run anything, and other formats of the weights are not needed."""


def from_hub(repo: str, revision: str | None, cache: Path, allowed: AllowedSources, repository: Repository) -> Path:
    """Return the snapshot's folder below `cache`. Raises SourceRefused.

    Only HF_TOKEN gives access to what is not public; a job may not use the login of the person who started the service.
    """
    what = f"{repository} {repo} on the Hugging Face hub"
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise SourceRefused(
            Refusal(
                "no such file or folder, and hub ids need the package huggingface_hub",
                "correct the path, or install huggingface_hub",
            )
        ) from error
    arguments: dict[str, Any] = {
        "repo_id": repo,
        "repo_type": repository,
        "revision": revision,
        "cache_dir": cache / "hub",
        "ignore_patterns": list(_CODE),
        "token": os.environ.get("HF_TOKEN") or False,
    }
    try:
        with writing(cache / "hub"):
            _require_room(arguments, allowed)
            folder = snapshot_download(**arguments, tqdm_class=_until(time.monotonic() + allowed.download_seconds, allowed))
    except errors.GatedRepoError as error:
        remedy = "accept its licence there and set HF_TOKEN for this service"
        raise SourceRefused(Refusal(f"{what} is gated", remedy)) from error
    except errors.RepositoryNotFoundError as error:
        remedy = "correct the path or the id; for a private repository set HF_TOKEN for this service"
        raise SourceRefused(Refusal(f"no such file or folder here, and no {what}", remedy)) from error
    except errors.RevisionNotFoundError as error:
        remedy = "name a branch, tag or commit that exists"
        raise SourceRefused(Refusal(f"{what} has no revision {revision}", remedy)) from error
    except errors.HFValidationError as error:
        raise SourceRefused(
            Refusal("no such file or folder, and not a hub id", "give a path, a URL or owner/name")
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        remedy = (
            "give a path that this service can read, or let it reach the hub (HF_ENDPOINT, HTTPS_PROXY, HF_HUB_OFFLINE=0)"
        )
        reason = f"no such file or folder here, and the hub cannot be reached to look for {what}"
        raise SourceRefused(Refusal(reason, remedy)) from error
    mark_used(Path(folder).parent.parent)
    return Path(folder)


def _require_room(arguments: dict[str, Any], allowed: AllowedSources) -> None:
    """Ask how much would be downloaded. If the hub does not answer, the cached files are used and nothing is downloaded."""
    from huggingface_hub import errors, snapshot_download

    try:
        files = snapshot_download(**arguments, dry_run=True)
    except errors.DryRunError:
        return
    size = sum(file.file_size for file in files if file.will_download)
    if size > allowed.download_bytes:
        raise SourceRefused(too_large(size, allowed))


def _until(ends_at: float, allowed: AllowedSources) -> Any:
    """A progress bar that aborts the download when its time limit has passed."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bounded(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            if time.monotonic() > ends_at:
                raise SourceRefused(too_slow(allowed))
            shown: bool | None = super().update(n)
            return shown

    return Bounded
