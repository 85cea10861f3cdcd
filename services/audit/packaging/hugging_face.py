"""Writes a version as a folder in Hugging Face layout, which transformers and PEFT load by itself."""

from pathlib import Path

from services.audit.packaging.contents import Contents
from services.chassis.storage.artifacts.files import copy_file, write_file


def write_folder(contents: Contents, folder: Path) -> None:
    """Write all files below `folder`, durably."""
    for name, file in contents.files.items():
        copy_file(file, folder / name, name)
    for name, content in contents.documents.items():
        write_file(folder / name, content)
