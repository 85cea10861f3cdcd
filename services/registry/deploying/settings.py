"""The operator's settings for what serves versions, and the drivers that are configured by them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.artifacts import SHA256_PATTERN
from schemas.base import Strict
from schemas.deployments import KSERVE, LOCAL, VLLM

_Owner = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,199}$")]


class VllmServer(Strict):
    """One server of vLLM that the operator runs, with one base model."""

    url: str = Field(pattern=r"^https?://[^\s/?#@]+$", description="Its address, such as http://gpu-1:8000.")
    base_model: str = Field(min_length=1, description="Reference of its base model, as jobs name it.")
    base_model_sha256: str | None = Field(
        default=None,
        pattern=SHA256_PATTERN,
        description="Digest of the base model's files; null: the reference has to be equal.",
    )
    serves: str | None = Field(
        default=None, description="What the server calls its base model (--served-model-name); null: as `base_model` says."
    )
    api_key_variable: _Variable | None = Field(
        default=None, description="Environment variable with its API key; null: it asks for none."
    )
    paths: dict[str, str] = Field(
        default_factory=dict,
        description="Folders of the registry's machine, such as the artifact store, and where the server sees them; without: at the same path.",
    )
    adapters: int | None = Field(
        default=None, ge=1, description="The most adapters that the registry loads into it; null: what the server takes."
    )
    compare_answers: bool = Field(
        default=True,
        description="Whether recorded answers are compared; false for a server that computes otherwise, as a quantised one.",
    )

    @property
    def base_name(self) -> str:
        """What the server calls its base model."""
        return self.serves or self.base_model

    @property
    def key(self) -> str | None:
        """Its API key; None if it needs none, or the variable is empty."""
        return (os.environ.get(self.api_key_variable, "").strip() or None) if self.api_key_variable else None


_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KserveSettings(Strict):
    """A namespace of a Kubernetes cluster with KServe."""

    api: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/?#@]+$",
        description="Address of the cluster's API; null: that of the cluster in which the registry runs.",
    )
    token_variable: _Variable | None = Field(
        default=None, description="Environment variable with a token for the API; null: that of the pod's service account."
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM of the authority that signs the API's certificate; null: the cluster's in a pod, else those of the machine.",
    )
    namespace: str = Field(default="default", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="The namespace.")
    storage: dict[str, str] = Field(
        default_factory=dict,
        description="Folders of the registry's machine, or URIs of stores, and the URIs under which KServe reads them, such as pvc://artifacts.",
    )
    base_models: dict[str, str] = Field(
        default_factory=dict,
        description="URIs under which KServe reads base models, by reference; without: hf:// and the reference for an id of the hub.",
    )
    service_account: str | None = Field(
        default=None, description="Service account of the pods, whose secrets KServe reads stores with."
    )
    runtime: str | None = Field(
        default=None, description="Name of the serving runtime; null: KServe chooses one for `huggingface`."
    )
    resources: dict[str, str] = Field(
        default_factory=dict, description='Limits of each pod, such as {"nvidia.com/gpu": "1", "memory": "16Gi"}.'
    )
    args: tuple[str, ...] = Field(default=(), description="More arguments of the server, such as --max-model-len=4096.")
    compare_answers: bool = Field(default=True, description="Whether recorded answers are compared.")

    @property
    def token(self) -> str | None:
        """The token for the API, as it is now: a service account's changes every hour."""
        if self.token_variable is not None:
            return os.environ.get(self.token_variable, "").strip() or None
        try:
            return (_IN_CLUSTER / "token").read_text().strip() or None
        except OSError:
            return None

    @property
    def address(self) -> str | None:
        """Address of the API; None outside of a cluster if none is set."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        return self.api or (f"https://{host}:{port}" if host else None)

    @property
    def authority(self) -> Path | None:
        """PEM of the authority of the API's certificate; None: those of the machine."""
        own = _IN_CLUSTER / "ca.crt"
        return self.ca_file or (own if self.api is None and own.exists() else None)


class ServingSettings(BaseSettings):
    """Read from `NEUROWEAVER_SERVING_*`."""

    model_config = SettingsConfigDict(
        env_prefix="NEUROWEAVER_SERVING_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    driver: Literal["local", "vllm", "kserve"] = Field(
        default="local", description="The driver of a deployment that names none."
    )
    owner: _Owner = Field(
        default="neuroweaver",
        description="Name of this registry among others that use the same servers or the same cluster; it touches only what bears it.",
    )
    vllm: tuple[VllmServer, ...] = Field(default=(), description="The vLLM servers, as a JSON list.")
    kserve: KserveSettings | None = Field(default=None, description="The cluster with KServe, as a JSON object.")

    @property
    def configured(self) -> tuple[str, ...]:
        """The drivers that can be chosen."""
        return (LOCAL, *([VLLM] if self.vllm else []), *([KSERVE] if self.kserve else []))

    @property
    def keys(self) -> dict[str, str]:
        """API keys by the address of their server."""
        return {server.url: key for server in self.vllm if (key := server.key)}

    @property
    def secrets(self) -> Iterator[str]:
        """What no output may contain."""
        yield from self.keys.values()
        if self.kserve is not None and (token := self.kserve.token):
            yield token
