"""The front door: `unitscope.open_atlas(path)` for notebooks, `unitscope.Client(url)` for the same over HTTP.

import unitscope
atlas = unitscope.open_atlas("atlas/")
atlas.unit("_blocks.15:130")  # a notebook shows its patches
atlas.top("_blocks.15:130").to_pylist()
"""

from typing import TYPE_CHECKING

from unitscope.arguments import names_checked

if TYPE_CHECKING:
    from unitscope.client import Client
    from unitscope.opened_atlas import OpenedAtlas
    from unitscope.questions import Questions

    __version__: str

__all__ = ["Client", "OpenedAtlas", "Questions", "__version__", "open_atlas"]


@names_checked
def open_atlas(
    path: str,
    trust_code: bool = False,
    version: str | None = None,
    workers: int | None = None,
    corpus: str | None = None,
    annotations: str | None = None,
) -> "OpenedAtlas":
    """Open an atlas whose answers are Arrow tables, with the same numbers as the command line and the API.

    Only with `trust_code` is a model of the owner's own code built, for questions about pictures from outside.
    `version` names an earlier version, by its name or the beginning of it. `workers` is how many processes compare
    units, one per core by default. `corpus` is the folder below which the pictures are now, if they have moved;
    `annotations` the folder of what people write, beside the atlas by default. Raises NotFoundError if there is no
    atlas, AtlasError if parts are missing.
    """
    from unitscope.opened_atlas import OpenedAtlas

    return OpenedAtlas(path, trust_code, version, workers, corpus, annotations)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("unitscope")
    modules = {"Client": "client", "OpenedAtlas": "opened_atlas", "Questions": "questions"}
    if name in modules:
        from importlib import import_module

        exported: object = getattr(import_module(f"unitscope.{modules[name]}"), name)
        return exported
    raise AttributeError(f"module 'unitscope' has no attribute {name!r}")
