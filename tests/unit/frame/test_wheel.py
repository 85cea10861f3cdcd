"""What is installed elsewhere is what lies here: a wheel carries every file of the packages."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

_ROOT = Path(__file__).parents[3]


def test_a_wheel_carries_every_file_of_the_packages(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "schemas", "services"], cwd=_ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    wanted = {name for name in listed if (_ROOT / name).is_file()}
    source = tmp_path / "source"
    for name in (*wanted, "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_ROOT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (wheel,) = tmp_path.glob("neuroweaver-*.whl")
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())
