"""What holds for every file of the repository."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ROOT = Path(__file__).parents[3]
_REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("repo1", "maven"),
        ("repo", "maven"),
        ("maven", "org"),
        ("registry", "npmjs"),
        ("npmjs", "com"),
        ("proxy", "golang"),
        ("crates", "io"),
        ("docker", "io"),
        ("ghcr", "io"),
        ("quay", "io"),
        ("deb", "debian"),
        ("anaconda", "org"),
    )
)


@pytest.fixture(scope="module")
def files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=_ROOT, capture_output=True, text=True, check=True)
    return [_ROOT / name for name in listed.stdout.splitlines() if (_ROOT / name).is_file()]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    return loaded


def pins() -> dict[str, Requirement]:
    lines = (_ROOT / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pinned}


def test_no_file_names_a_package_registrys_host(files: list[Path]) -> None:
    found = [
        f"{path.relative_to(_ROOT)}: {host}"
        for path in files
        for text in [path.read_text(errors="ignore")]
        for host in _REGISTRY_HOSTS
        if host in text
    ]
    assert found == []


def test_every_dependency_is_pinned_to_a_version_that_it_allows(project: dict[str, Any]) -> None:
    wanted = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    known = pins()
    for requirement in map(Requirement, wanted):
        pin = known[canonicalize_name(requirement.name)]
        (exact,) = pin.specifier
        assert exact.operator == "==", pin
        assert requirement.specifier.contains(exact.version), (requirement, pin)


def test_only_the_trainer_the_local_judge_and_the_local_driver_bring_torch(project: dict[str, Any]) -> None:
    extras: dict[str, list[str]] = project["optional-dependencies"]
    assert {name for name, needs in extras.items() if any(re.match(r"torch\b", need) for need in needs)} == {
        "trainer",
        "local-judge",
        "serving",
    }
    assert not any(re.match(r"(torch|transformers)\b", need) for need in project["dependencies"])


def test_pins_of_one_platform_say_so() -> None:
    for name, pin in pins().items():
        if name == "nvidia-ml-py":
            continue  # it is plain Python and installed everywhere
        if name.startswith(("nvidia-", "cuda-")) or name == "triton":
            assert pin.marker is not None, pin
            assert not pin.marker.evaluate({"platform_system": "Darwin", "platform_machine": "arm64"})
            assert not pin.marker.evaluate({"platform_system": "Linux", "platform_machine": "aarch64"})
            assert pin.marker.evaluate({"platform_system": "Linux", "platform_machine": "x86_64"})
