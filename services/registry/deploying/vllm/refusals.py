"""Says what a vLLM server's refusal means for a slot, in a word and with a remedy."""

import json

from services.registry.deploying.faults import Away, Refused
from services.registry.deploying.remote.http import AWAY, Reply
from services.registry.deploying.settings import VllmServer

_BUSY = (408, 425, 429, 502, 503, 504)
_NO_ROUTE = (403, 404, 405, 501)
_FULL = ("slot", "max_loras", "max_cpu_loras", "number of loaded loras", "out of memory")


def key_refused(server: VllmServer) -> Refused:
    """The server takes no request with the key that it gets, or without one."""
    if server.api_key_variable is None:
        remedy = "name the environment variable with its key as api_key_variable"
    elif server.key is None:
        remedy = f"set the environment variable {server.api_key_variable} of the registry, which is empty"
    else:
        remedy = f"put the key with which the server was started (--api-key) into {server.api_key_variable} of the registry"
    return Refused("KeyRefused", f"the vLLM server {server.url} refuses the registry's key; {remedy}")


def load_refused(server: VllmServer, reply: Reply, path: str) -> Refused | Away:
    """The server did not load an adapter."""
    said, kind = _said(reply)
    where = f"the vLLM server {server.url}"
    if reply.status == 401:
        return key_refused(server)
    if reply.status == 404 and kind == "NotFoundError":
        what = f"{where} finds no adapter at {path}"
        return Refused(
            "FilesUnavailable", f"{what}; mount the artifact store there, and set `paths` to where the server sees it"
        )
    if reply.status in _NO_ROUTE or "not enabled" in said.lower():
        what = f"{where} loads no adapters while it runs (status {reply.status})"
        return Refused("UpdatesDisabled", f"{what}; start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True")
    if reply.status in _BUSY:
        return Away(AWAY, f"{where} is too busy to load an adapter (status {reply.status}); it is tried again")
    what = f"{where} does not load the adapter at {path}: {said}"
    if "max_lora_rank" in said:
        return Refused("Unloadable", f"{what}; start it with a --max-lora-rank that is large enough")
    if any(word in said.lower() for word in _FULL):
        return Refused(
            "ServerFull", f"{what}; retire a deployment, or start it with larger --max-loras and --max-cpu-loras"
        )
    if reply.status >= 500 and not kind:
        return Away(AWAY, f"{what} (status {reply.status}); look into its log")
    return Refused("Unloadable", f"{what}; deploy a version that it can load, or look into its log")


def unload_refused(server: VllmServer, reply: Reply) -> Refused | Away | None:
    """The server did not unload an adapter; None if it has none of that name."""
    said, kind = _said(reply)
    if reply.status == 401:
        return key_refused(server)
    if reply.status == 404 and kind == "NotFoundError":
        return None
    return Away(AWAY, f"the vLLM server {server.url} unloads no adapter (status {reply.status}): {said}; unload it there")


def _said(reply: Reply) -> tuple[str, str]:
    """Return the words and the type of an error; the type is empty if it is not vLLM's."""
    try:
        found = json.loads(reply.body)
        error = found.get("error", found)
        return str(error["message"])[:300], str(error.get("type") or "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return reply.words, ""
