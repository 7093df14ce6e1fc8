"""Geometry of boxes, placements and receptive fields: integer arithmetic on half-open pixel ranges, no arrays."""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from unitscope_schemas.errors import UsageError

Span = tuple[int, int]
"""Half-open range (first, end) of pixel rows or columns, or of others."""


class Size(NamedTuple):
    """A size is height and width in pixels, or rows and columns of a grid; as a text it is width × height."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width} × {self.height}"


class Location(NamedTuple):
    """A location is (row, col) on a layer's grid; a class or register token t has row −1 and col t."""

    row: int
    col: int

    def __str__(self) -> str:
        return f"{self.row},{self.col}"


class Box(NamedTuple):
    """A box is a half-open range of pixels (top, left, bottom, right)."""

    top: int
    left: int
    bottom: int
    right: int

    def __str__(self) -> str:
        return ",".join(map(repr, self))

    @property
    def size(self) -> Size:
        """Return height and width of the box in pixels."""
        return Size(self.bottom - self.top, self.right - self.left)

    def clipped(self, size: Size) -> "Box":
        """Return the part of the box inside a picture of `size`."""
        top, left = min(max(self.top, 0), size.height), min(max(self.left, 0), size.width)
        bottom, right = min(max(self.bottom, top), size.height), min(max(self.right, left), size.width)
        return Box(top, left, bottom, right)

    def inside(self, size: Size) -> bool:
        """Return whether the box is not empty and lies within a picture of `size`."""
        return 0 <= self.top < self.bottom <= size.height and 0 <= self.left < self.right <= size.width

    @classmethod
    def parse(cls, text: str) -> "Box":
        """Read a box from `top,left,bottom,right`; raise UsageError unless these are four whole numbers."""
        try:
            top, left, bottom, right = (int(part) for part in text.split(","))
        except ValueError:
            raise UsageError(f"box {text!r} is not four whole numbers: top,left,bottom,right") from None
        return cls(top, left, bottom, right)


class Placement(BaseModel):
    """A placement says where the network's input lies in the original picture: resize, then crop.

    The original picture is the upright one: its EXIF orientation has been applied.
    """

    model_config = ConfigDict(frozen=True)

    image: Size
    """Size of the original picture."""
    resized: Size
    """Size after resizing, before the crop."""
    crop: Location
    """First row and column of the resized picture that are cropped; negative where it is smaller than the input."""
    input: Size
    """Size of the network's input."""

    @property
    def seen(self) -> Box:
        """Return the part of the original picture that the network sees."""
        return self.to_image(Box(0, 0, self.input.height, self.input.width))

    def to_image(self, box: Box) -> Box:
        """Return the smallest box of original pixels that holds an input box, clipped to the picture."""
        return Box(
            (box.top + self.crop.row) * self.image.height // self.resized.height,
            (box.left + self.crop.col) * self.image.width // self.resized.width,
            -((box.bottom + self.crop.row) * self.image.height // -self.resized.height),
            -((box.right + self.crop.col) * self.image.width // -self.resized.width),
        ).clipped(self.image)

    def to_input(self, box: Box) -> Box:
        """Return the smallest box of input pixels that holds an original box, clipped to the input."""
        return Box(
            box.top * self.resized.height // self.image.height - self.crop.row,
            box.left * self.resized.width // self.image.width - self.crop.col,
            -(box.bottom * self.resized.height // -self.image.height) - self.crop.row,
            -(box.right * self.resized.width // -self.image.width) - self.crop.col,
        ).clipped(self.input)


class ReceptiveField(BaseModel):
    """A receptive field says which input pixels can change a layer's units, for every location of its grid.

    The unclipped geometry, `size`, `stride` and `start`, is None where a unit sees the whole input through pooling or
    attention.
    """

    model_config = ConfigDict(frozen=True)

    input: Size
    """Size of the network's input."""
    kind: Literal["local", "whole"]
    """Word for fields that move with the location, and for those that are the whole input everywhere."""
    size: Size | None
    """Height and width of the unclipped box."""
    stride: Size | None
    """Input pixels from one location's box to the next, down and to the right."""
    start: Location | None
    """First row and column of the unclipped box at location (0, 0); negative where it lies in padding."""
    rows: tuple[Span, ...]
    """Pixel rows that each row of the grid sees, measured on the real computation and clipped at the border."""
    cols: tuple[Span, ...]
    """Pixel columns that each column of the grid sees, measured and clipped likewise."""
    effective: Size
    """Height and width of the box at a location that holds at least 90 % of the gradient's energy (Luo et al. 2016),
    as measured on samples of the layer, or of a unit."""
    unmeasured: str | None = None
    """Reason why the effective field could not be measured, and is as large as the theoretical one; None where there is
    no such reason."""

    def box_at(self, location: Location) -> Box:
        """Return the theoretical box of a location, in input pixels, clipped at the border."""
        if location.row < 0:
            return Box(0, 0, self.input.height, self.input.width)
        (top, bottom), (left, right) = self.rows[location.row], self.cols[location.col]
        return Box(top, left, bottom, right)

    def padding_at(self, location: Location) -> Box:
        """Return how many pixels of the unclipped box lie beyond each border: (top, left, bottom, right)."""
        if self.size is None or self.stride is None or self.start is None or location.row < 0:
            return Box(0, 0, 0, 0)
        top = self.start.row + location.row * self.stride.height
        left = self.start.col + location.col * self.stride.width
        return Box(
            max(0, -top),
            max(0, -left),
            max(0, top + self.size.height - self.input.height),
            max(0, left + self.size.width - self.input.width),
        )

    def effective_box_at(self, location: Location) -> Box:
        """Return the effective box of a location, in input pixels, never beyond the theoretical one.

        The box lies around the location's middle, but at the input's border it is moved inwards: there a gradient
        spreads to the inside only, just as far.
        """
        theoretical = self.box_at(location)
        if location.row < 0:
            return theoretical
        height, width = self.effective
        row, col = self.centre_at(location)
        top = max(0, min(row - height // 2, self.input.height - height))
        left = max(0, min(col - width // 2, self.input.width - width))
        return Box(
            max(top, theoretical.top),
            max(left, theoretical.left),
            min(top + height, theoretical.bottom),
            min(left + width, theoretical.right),
        )

    def of_height(self, height: int | None) -> Size:
        """Return the size of an effective box by its height, in the proportions of the field.

        It is at most the field and the input; with None it is as large as they are.
        """
        aspect = self.size or self.input
        tall = aspect.height if height is None else height
        wide = aspect.width if height is None else -(-height * aspect.width // aspect.height)
        return Size(min(tall, aspect.height, self.input.height), min(wide, aspect.width, self.input.width))

    def of_unit(self, height: int | None) -> "ReceptiveField":
        """Return the field of a unit whose effective box has a height of its own; None: it has the layer's."""
        return self if height is None else self.model_copy(update={"effective": self.of_height(height)})

    @property
    def covers_input(self) -> bool:
        """Return whether a unit away from the border sees the whole input, so that the effective box says more."""
        return self.size is None or (self.size.height >= self.input.height and self.size.width >= self.input.width)

    def centre_at(self, location: Location) -> tuple[int, int]:
        """Return the input pixel (row, col) in the middle of a location's unclipped box, moved inside the input."""
        if self.size is not None and self.stride is not None and self.start is not None:
            row = self.start.row + location.row * self.stride.height + self.size.height // 2
            col = self.start.col + location.col * self.stride.width + self.size.width // 2
        else:
            row = (2 * location.row + 1) * self.input.height // (2 * len(self.rows))
            col = (2 * location.col + 1) * self.input.width // (2 * len(self.cols))
        return min(max(row, 0), self.input.height - 1), min(max(col, 0), self.input.width - 1)
