"""The command that updates all generated files, or reports those that are out of date."""

import argparse
import sys
from pathlib import Path

from schemas.generate.files import generated, stale, write

ROOT = Path(__file__).parents[2]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Return exit code 0 if all files are up to date (afterwards), 1 if `--check` found one that is not."""
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a file is out of date")
    check = parser.parse_args(arguments).check
    files = generated()
    differing = stale(root, files)
    if not check:
        write(root, files)
    verb = "out of date" if check else "written"
    sys.stdout.writelines(f"{verb}: {path}\n" for path in differing)
    if check and differing:
        sys.stdout.write("run: python -m schemas.generate\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
