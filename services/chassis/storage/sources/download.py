"""Downloads one file over http or https, bounded in size and time; the file is complete or absent."""

import asyncio
import hashlib
import os
import shutil
import uuid
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

import httpx2

from services.chassis.storage.artifacts.manifest import safe_path
from services.chassis.storage.durable import mark_used, place_first
from services.chassis.storage.sources.allowed import AllowedSources, Refusal
from services.chassis.storage.sources.reaching import Guarded, Resolve, SourceRefused, resolved, url_of
from services.chassis.storage.stores import amount, writing

_REDIRECTS = 5
_SILENCE_SECONDS = 30.0
_PASSING = (408, 425, 429)
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "neuroweaver"}


class SourceAway(OSError):
    """The server does not answer properly at present; a retry may help."""


def download(url: str, cache: Path, allowed: AllowedSources, *, resolve: Resolve = resolved) -> Path:
    """Return the file of `url` below `cache`, which must not be written to. Raises SourceRefused and SourceAway; neither
    quotes the response."""
    wanted = url_of(url, allowed)
    scratch = cache / "tmp" / uuid.uuid4().hex
    with writing(cache):
        try:
            scratch.mkdir(parents=True)
            with (scratch / "file").open("xb") as out:
                digest = asyncio.run(_fetch(wanted, out, allowed, resolve))
            name = unquote(wanted.path.rpartition("/")[2])
            target = cache / "references" / hashlib.sha256(f"{wanted} {digest}".encode()).hexdigest()
            (scratch / "file").rename(scratch / (name if safe_path(name) and len(os.fsencode(name)) < 200 else "file"))
            if not target.exists():
                place_first(scratch, target)
        except (httpx2.InvalidURL, httpx2.TooManyRedirects):
            raise SourceRefused(Refusal("the server answers with an invalid redirect", "give the final URL")) from None
        except TimeoutError:
            raise SourceRefused(too_slow(allowed)) from None
        except httpx2.RequestError as error:
            raise SourceAway(f"the server of the reference does not answer ({type(error).__name__})") from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    mark_used(target)
    (file,) = target.iterdir()
    return file


async def _fetch(url: httpx2.URL, out: BinaryIO, allowed: AllowedSources, resolve: Resolve) -> str:
    """Write the body to `out` and return its SHA-256.

    Raises TimeoutError when the time limit of the download has passed.
    """
    digest, size = hashlib.sha256(), 0
    client = httpx2.AsyncClient(
        transport=Guarded(allowed, resolve, kept=0), follow_redirects=True, max_redirects=_REDIRECTS, headers=_HEADERS,
        timeout=_SILENCE_SECONDS,
    )  # fmt: skip
    async with asyncio.timeout(allowed.download_seconds), client, client.stream("GET", url) as response:
        _require_success(response.status_code)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise SourceRefused(
                Refusal("the server compresses its answer, although the request does not allow it", "serve the plain file")
            )
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) > allowed.download_bytes:
            raise SourceRefused(too_large(int(announced), allowed))
        async for block in response.aiter_raw():
            size += len(block)
            if size > allowed.download_bytes:
                raise SourceRefused(too_large(None, allowed))
            digest.update(block)
            out.write(block)
    return digest.hexdigest()


def _require_success(status: int) -> None:
    if status >= 500 or status in _PASSING:
        raise SourceAway(f"the server of the reference answers HTTP {status}")
    if status in (401, 403):
        raise SourceRefused(
            Refusal(f"the server refuses access (HTTP {status})", "use a URL that needs no credentials, or a path")
        )
    if status != 200:
        raise SourceRefused(Refusal(f"the server has no such file (HTTP {status})", "correct the URL"))


def too_large(size: int | None, allowed: AllowedSources) -> Refusal:
    """The refusal of a download with more bytes than the operator allows."""
    more = "more" if size is None else amount(size)
    return Refusal(
        f"it is too large for a download: {more}, and {amount(allowed.download_bytes)} are allowed",
        "name something smaller, or have the operator raise NEUROWEAVER_SOURCES_DOWNLOAD_MB",
    )


def too_slow(allowed: AllowedSources) -> Refusal:
    """The refusal of a download that takes longer than the operator allows."""
    return Refusal(
        f"the download takes longer than {allowed.download_seconds:g} s",
        "name a faster server or something smaller, or have the operator raise NEUROWEAVER_SOURCES_DOWNLOAD_SECONDS",
    )
