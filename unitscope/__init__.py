"""The front door: `unitscope.open_atlas(path)` for notebooks, `unitscope.Client(url)` for the same over HTTP.

import unitscope
atlas = unitscope.open_atlas("atlas/")
atlas.top("_blocks.15:130").to_pandas()
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitscope.client import Client
    from unitscope.notebook import Notebook

__all__ = ["Client", "open_atlas"]


def open_atlas(path: str, trust_code: bool = False, version: str | None = None) -> "Notebook":
    """An atlas whose answers are Arrow tables, with the same numbers as the command line and the API.

    Only with `trust_code` is a model of the owner's own code built, for questions about pictures from outside.
    `version`: an earlier one, by its name or the beginning of it.
    """
    from unitscope.notebook import Notebook

    return Notebook(path, trust_code, version)


def __getattr__(name: str) -> Any:
    if name == "Client":
        from unitscope.client import Client

        return Client
    if name == "__version__":
        from importlib.metadata import version

        return version("unitscope")
    raise AttributeError(f"module 'unitscope' has no attribute {name!r}")
