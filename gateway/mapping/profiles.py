"""The library of device profiles: mappings by maker and model that ship with headgate."""

from __future__ import annotations

import re
from pathlib import Path

import gateway
from gateway.mapping.mistakes import nearest

EXAMPLES = "examples"
"""The folder of the library that holds whole gateway files and no profiles."""

_PROFILE = re.compile(r"[a-z0-9][a-z0-9_-]*/[a-z0-9][a-z0-9_.-]*")


def library() -> Path:
    """The folder of the library: package data where headgate is installed, else the folder beside the package."""
    package = Path(gateway.__file__).parent
    inside = package / "data" / "mappings"
    return inside if inside.is_dir() else package.parent / "mappings"


def profiles(folder: Path | None = None) -> list[str]:
    """Names of all profiles (vendor/model), sorted."""
    root = folder or library()
    found = (path.relative_to(root).with_suffix("").as_posix() for path in root.glob("*/*.yaml"))
    return sorted(name for name in found if not name.startswith(f"{EXAMPLES}/"))


def find_profile(name: str, folder: Path | None = None) -> Path:
    """The file of a profile. Raises ValueError with the cure when there is none."""
    root = folder or library()
    if not _PROFILE.fullmatch(name):
        raise ValueError(
            f"'{name}' is no profile. Write vendor/model, in lower case; a file of your own goes into mapping:"
        )
    if name not in profiles(root):
        raise ValueError(f"there is no profile '{name}'{nearest(name, profiles(root))}")
    return root / f"{name}.yaml"
