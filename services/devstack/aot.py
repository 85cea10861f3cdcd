"""Creates an AOT cache of the classes that Kafka's JVM loads and links, which halves its start time (JEP 483, JEP 514).

`make jars` creates it once per jars and Java, from one start of a broker, next to the jars. Without it, or with another
Java, Kafka starts in the usual time. `python -m services.devstack.aot` downloads the jars and creates it.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from services.chassis.process.transient import described
from services.devstack import jars
from services.devstack.java import NoJava, find_java, java_version
from services.devstack.kafka import KafkaServer, aot_cache
from services.devstack.process import ServerFailure
from services.devstack.settings import DevStackSettings

_FIRST_VERSION = 25
"""The first Java version that creates a cache in two steps from an ordinary start."""
_KEPT = 3
"""Number of caches that are kept, 67 MB each: checkouts with different Javas may share one folder."""


def make(java: Path, found: Sequence[Path], heap_mb: int, say: jars.Say) -> Path | None:
    """Create the cache if there is none; None if this Java supports none.

    Raises ServerFailure, SubprocessError and OSError.
    """
    cache = aot_cache(java, found)
    if cache.exists() or java_version(java) < _FIRST_VERSION:
        return cache if cache.exists() else None
    say("preparing Java for faster starts of Kafka (once, about 15 seconds)")
    with tempfile.TemporaryDirectory(prefix=".aot-", dir=cache.parent) as staging:
        known, made = Path(staging) / "kafka.aotconf", Path(staging) / cache.name
        server = KafkaServer(Path(staging) / "kafka", Path(staging) / "kafka.log", java, found, heap_mb=heap_mb)
        server.java_options = ("-XX:AOTMode=record", f"-XX:AOTConfiguration={known}")
        server.start()
        server.stop()
        server.java_options = ("-XX:AOTMode=create", f"-XX:AOTConfiguration={known}", f"-XX:AOTCache={made}")
        subprocess.run(server.java_command(), check=True, capture_output=True, timeout=300)
        made.replace(cache)
    for old in sorted(cache.parent.glob("*.aot"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return cache


def main() -> None:
    """Download the jars, then create the cache; only the jars' failure gives an exit code, as Kafka starts without a cache."""
    settings = DevStackSettings()

    def say(text: str) -> None:
        print(text, flush=True)  # noqa: T201 - a command's progress

    try:
        found = jars.install(settings.cache, say)
    except jars.JarFailure as failure:
        sys.exit(str(failure))
    try:
        make(find_java(settings.java), found, settings.kafka_heap_mb, say)
    except (NoJava, ServerFailure, subprocess.SubprocessError, OSError) as error:
        say(f"Kafka starts without the cache, more slowly: {described(error)}")


if __name__ == "__main__":
    main()
