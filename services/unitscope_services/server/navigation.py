"""The bar at the top of every page: what it leads to, also on pages that are about no atlas."""

from dataclasses import dataclass

from unitscope_services.server.atlas_registry import AtlasRegistry
from unitscope_services.server.links import Links, links_of


@dataclass(frozen=True)
class Navigation:
    """The atlas that live view, notes and search are of, None where several are served and none is meant.

    `compares`: whether there are two atlases, or two layers of the only one, to compare.
    """

    links: Links | None
    compares: bool


def navigation_of(atlases: AtlasRegistry, atlas: str = "") -> Navigation:
    """Return the bar of a page about an atlas, or about none: then the only one that is served is meant."""
    names = atlases.names
    meant = atlas if atlas in names else names[0] if len(names) == 1 else None
    if meant is None:
        return Navigation(None, compares=len(names) > 1)
    opened = atlases.newest(meant).atlas
    return Navigation(links_of(opened), compares=len(names) > 1 or len(opened.manifest.layers) > 1)
