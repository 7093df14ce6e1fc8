"""Manifests of format version 2, whose only segment was all of a version's images: they are read as those of today."""

from typing import Any

_OTHERWISE = ("images", "hot", "patches", "shared")
"""What is said in another place."""


def renewed(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a manifest of format version 2 as one of version 3; raises LookupError or TypeError where
    it is none.
    """
    removed, shared, patches = content.get("removed"), content.get("shared"), dict(content["patches"])
    images, lookup = content["images"], content["hot"]
    built = removed["built"] if removed else content["version"]
    segment = {
        "name": shared["ranks"] if shared else built,
        "image_count": images["rows"],
        "tables": {"images": images, "lookup": None, "files": None},
        "layers": {
            # the statistics of relabelled images lie under another name than the ranks
            entry["spec"]["name"]: {"units": entry["units"], "ranked": entry["ranked"]}
            for entry in content["layers"]
        },
        "numbers": None,
    }
    embedding = {name: patches.pop(name) for name in ("layer", "width", "regions")}
    layers = [{name: value for name, value in entry.items() if name != "ranked"} for entry in content["layers"]]
    left = {name: value for name, value in content.items() if name not in _OTHERWISE}
    return left | {
        "format_version": 3,
        "layers": layers,
        "embedding": embedding,
        "segments": [segment | {"patches": patches}],
        "groups": None,
        # the oldest atlases hold first ranks with their paths
        "first_ranks": lookup.get("ranks") or lookup["database"],
        "unread": [lookup["database"], lookup["images"]] if lookup.get("ranks") else [lookup["images"]],
    }
