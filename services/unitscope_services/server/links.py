"""Addresses of pages, answers and pictures, as the pages of one atlas link them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from unitscope_schemas.geometry import Box
from unitscope_schemas.units import Target, UnitId
from unitscope_services.atlas.atlas import Atlas

Value = str | int | float | None


def dated(version: str, state: str) -> str:
    """Return an atlas's version, with the state of what is stored beside it where an answer shows that too."""
    return f"{version}.{state}" if state else version


@dataclass(frozen=True)
class Links:
    """Addresses within one atlas; those of pictures carry its version, so that they may be kept for good."""

    atlas: str
    version: str

    @property
    def home(self) -> str:
        """The atlas's page."""
        return f"/a/{quote(self.atlas)}"

    @property
    def skipped(self) -> str:
        """The page of files that are no usable image."""
        return f"{self.home}/skipped"

    @property
    def uploads(self) -> str:
        """Where pictures are uploaded."""
        return f"{self.home}/uploads"

    @property
    def find(self) -> str:
        """Where a text is looked for."""
        return f"{self.home}/find"

    @property
    def annotations(self) -> str:
        """The page of what people wrote."""
        return f"{self.home}/annotations"

    def collection(self, name: str) -> str:
        """Return the page of a collection."""
        return _address(self.home, ["collections", name], {})

    def filters(self, layer: str | None = None) -> str:
        """Return the page of a layer's weights as pictures; without a name of the first layer with weights."""
        return _address(self.home, ["filters"], {"layer": layer})

    @property
    def compare(self) -> str:
        """Where another atlas is chosen to compare this one with."""
        return _address("/compare", [], {"a": self.atlas})

    def live(self, *parts: str, **query: Value) -> str:
        """Return the live page, or a part of it."""
        return _address(self.home, ["live", *parts], query)

    def api(self, *parts: Value, **query: Value) -> str:
        """Return the address of an answer of the API about this atlas."""
        return _address("/api/v1/atlases", [self.atlas, *parts], query)

    def visual(self, target: Target, identifier: str) -> str:
        """Return the address of a stored picture of a unit or a direction."""
        kind = "units" if isinstance(target, UnitId) else "directions"
        return self.api("layers", target.layer, kind, target[1], "visualisations", f"{identifier}.png")

    def layer(self, name: str, **query: Value) -> str:
        """Return the page of a layer."""
        return _address(self.home, ["layers", name], query)

    def unit(self, layer: str, channel: int, query: Mapping[str, Value] | None = None) -> str:
        """Return the page of a unit."""
        return _address(self.home, ["layers", layer, "units", channel], query or {})

    def beside(self, units: Sequence[UnitId] = ()) -> str:
        """Return the page of several units side by side."""
        query = urlencode([("u", str(unit)) for unit in units], safe=":@")
        return f"{self.home}/units?{query}" if query else f"{self.home}/units"

    def part(self, layer: str, channel: int, name: str) -> str:
        """Return the address of a part of a unit's page."""
        return f"{self.unit(layer, channel)}/{name}"

    def comparison(self, identifier: str, **query: Value) -> str:
        """Return the page of a stored comparison with another atlas."""
        return _address(self.home, ["comparisons", identifier], query)

    def units(self, layer: str, channels: Sequence[int]) -> list[str]:
        """Return the pages of many units of one layer."""
        start = _address(self.home, ["layers", layer, "units"], {})
        return [f"{start}/{channel}" for channel in channels]

    def image(self, image_id: str, **query: Value) -> str:
        """Return the page of an image."""
        return _address(self.home, ["images", image_id[:16]], query)

    def at(self, start: str, **query: Value) -> str:
        """Return an address with further parameters."""
        return _address(start, [], query)

    def whole(self, image_id: str, width: int) -> str:
        """Return the address of the picture of a whole image."""
        return self.api("images", f"{image_id}.jpg", width=width, v=self.version)

    def peak(self, image_id: str, unit: str, size: int, look: Mapping[str, Value] | None = None) -> str:
        """Return the address of the picture of the patch where a unit peaks."""
        return self.api("patches", f"{image_id}.jpg", unit=unit, size=size, **(look or {}), v=self.version)

    def sprites(self, layer: str, sheet: int | Sequence[int], kind: str = "patch", state: str = "") -> str:
        """Return the address of the picture of 256 units' tiles of a kind, or of some channels', in the state of
        what is stored."""
        version = dated(self.version, state)
        which: dict[str, Value] = (
            {"sheet": sheet} if isinstance(sheet, int) else {"channels": ",".join(map(str, sheet))}
        )
        return self.api("layers", layer, "sprites", f"{kind}.webp", **which, v=version)

    def patch(self, image_id: str, box: Box, size: int) -> str:
        """Return the address of the picture of a box of an image."""
        return self.api("patches", f"{image_id}.jpg", box=box_text(box), size=size, v=self.version)


def links_of(atlas: Atlas) -> Links:
    """Return the addresses within an opened atlas."""
    return Links(atlas.name, atlas.version)


def box_text(box: Box) -> str:
    """Return a box as addresses write it."""
    return ",".join(map(str, box))


def _address(start: str, parts: list[Value], query: Mapping[str, Value]) -> str:
    path = "/".join([start, *(quote(str(part), safe="@:,") for part in parts)])
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given, safe=':,@')}" if given else path
