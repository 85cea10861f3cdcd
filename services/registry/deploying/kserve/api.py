"""Speaks the Kubernetes API about InferenceServices: get, list, apply and delete, which is all that the driver needs.

An object is applied by the server (`application/apply-patch+yaml`, KEP 555) under a field manager of our own, never by force, and with
`fieldValidation=Strict`: a field that an older KServe does not know is refused, not dropped.
"""

import json
import ssl
from collections.abc import Mapping
from typing import Any

from services.registry.deploying.faults import Refused
from services.registry.deploying.kserve.manifest import API_VERSION, MANAGER, OWNER
from services.registry.deploying.kserve.refusals import refused
from services.registry.deploying.kserve.status import Service, service_of, services_of
from services.registry.deploying.remote.http import Asking, Reply, client
from services.registry.deploying.settings import KserveSettings


class KubernetesApi:
    """The API of one cluster. All methods raise Away, or Refused for what the operator has to change."""

    def __init__(self, settings: KserveSettings, owner: str, seconds: float) -> None:
        self._settings, self._owner, self._seconds = settings, owner, seconds
        self._where = f"the Kubernetes API {settings.address}"
        self._path = f"/apis/{API_VERSION}/namespaces/{settings.namespace}/inferenceservices"
        self._asking: Asking | None = None

    async def get(self, name: str) -> Service | None:
        """Return an object; None if there is none."""
        reply = await self._send("GET", f"{self._path}/{name}")
        if reply.status == 404 and _is_missing(reply):
            return None
        return service_of(self._checked(reply).body, self._where)

    async def list(self) -> list[Service]:
        """Return all objects of this registry."""
        reply = await self._send("GET", self._path, params={"labelSelector": f"{OWNER}={self._owner}"})
        return services_of(self._checked(reply).body, self._where)

    async def apply(self, manifest: Mapping[str, Any]) -> None:
        """Make an object, or make it what it should be. One of its name that is not ours is left alone."""
        name = manifest["metadata"]["name"]
        known = await self.get(name)
        if known is not None and not known.is_of(self._owner):
            what = f"InferenceService {name} in namespace {self._settings.namespace} was made by somebody else"
            raise Refused("ForeignObject", f"{what}; rename or delete it, or give the registry another namespace")
        reply = await self._send(
            "PATCH", f"{self._path}/{name}", params={"fieldManager": MANAGER, "fieldValidation": "Strict"},
            content=json.dumps(manifest).encode(), headers={"content-type": "application/apply-patch+yaml"},
        )  # fmt: skip
        self._checked(reply)

    async def delete(self, name: str) -> None:
        """Delete an object of this registry, with everything that KServe made for it; nothing happens to one that is not ours."""
        known = await self.get(name)
        if known is None or not known.is_of(self._owner):
            return
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": known.metadata.uid}}
        reply = await self._send("DELETE", f"{self._path}/{name}", json=options)
        if not (reply.status == 404 and _is_missing(reply)):
            self._checked(reply)

    async def close(self) -> None:
        """Close the connections."""
        if self._asking is not None:
            await self._asking.http.aclose()

    async def _send(self, method: str, path: str, headers: Mapping[str, str] | None = None, **content: Any) -> Reply:
        token = self._settings.token
        sent = {**(headers or {}), **({"authorization": f"Bearer {token}"} if token else {})}
        return await self._connection().send(method, path, self._seconds, headers=sent, **content)

    def _connection(self) -> Asking:
        if self._asking is None:
            if (address := self._settings.address) is None:
                what = "the registry runs outside of a cluster, and the settings name none"
                raise Refused("NoCluster", f"{what}; set `api` and `token_variable` of NEUROWEAVER_SERVING_KSERVE")
            try:
                verify = ssl.create_default_context(cafile=self._settings.authority)
            except OSError as error:
                what = f"the certificate authority {self._settings.authority} cannot be read ({error.strerror})"
                raise Refused("NoCluster", f"{what}; correct `ca_file` of NEUROWEAVER_SERVING_KSERVE") from None
            self._asking = Asking(self._where, client(address, None, verify=verify))
        return self._asking

    def _checked(self, reply: Reply) -> Reply:
        if reply.status not in (200, 201, 202):
            raise refused(reply, self._where, self._settings)
        return reply


def _is_missing(reply: Reply) -> bool:
    """Whether a 404 says that there is no object of the name; without KServe the whole path is unknown."""
    try:
        said = json.loads(reply.body)
        return bool(said["details"]["kind"] == "inferenceservices" and said["reason"] == "NotFound")
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
