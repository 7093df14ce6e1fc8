"""The front door: `unitscope.open_atlas(path)` for notebooks.

import unitscope
atlas = unitscope.open_atlas("atlas/")
atlas.top("_blocks.15:130").to_pandas()
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitscope.notebook import Notebook

__all__ = ["open_atlas"]


def open_atlas(path: str, version: str | None = None) -> "Notebook":
    """An atlas whose answers are Arrow tables, with the same numbers as the command line and the API.

    `version`: an earlier one, by its name or the beginning of it.
    """
    from unitscope.notebook import Notebook

    return Notebook(path, version)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("unitscope")
    raise AttributeError(f"module 'unitscope' has no attribute {name!r}")
