"""The settings of a run in one frozen model: defaults < file < environment < flags."""

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unitscope_pipelines.corpora.columns import ColumnChoice
from unitscope_schemas.entries.model import DEFAULT_SPEC, Precision
from unitscope_schemas.errors import UsageError, listing

DEFAULT_FILE = "unitscope.toml"
_FLAGS_ALONE = ("add", "replace")
"""Settings of one run, which no later run may inherit."""


class IndexConfig(BaseModel):
    """The settings of an index run. `None` means: decided from the machine or taken from the atlas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str = Field(description="folder of pictures, tar shards, Parquet files, or a list; local or s3://")
    path_column: str | None = Field(None, description="column of a list with the paths; default: by its usual names")
    label_column: str | None = Field(None, description="column with the labels; default: by its usual names")
    image_column: str | None = Field(None, description="Parquet column with the pictures; default: found by content")
    atlas: str = Field(description="directory or s3:// address to write")
    model: str = Field(DEFAULT_SPEC, description="SCHEME:NAME, for example torchvision:resnet18")
    weights: str = Field("default", description="default, random:SEED or a state-dict file")
    latents: tuple[str, ...] = Field((), description="dictionaries on layers: LAYER=file:PATH.py:FACTORY")
    trust_code: bool = Field(False, description="run the files that model and latents name; by flag only")
    layers: tuple[str, ...] = Field((), description="globs on module paths; default: block outputs")
    embed: str | None = Field(None, description="layer whose embeddings find nearest patches; default: the last")
    batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="images in one forward; part of the atlas's identity; default: that of the atlas, else 32, and "
        "on a GPU as measured",
    )
    allow_batch_dependence: bool = Field(
        False, description="index values that depend on the batch's other pictures, or on chance; the manifest says so"
    )
    field_exemplars: int | None = Field(
        None,
        ge=0,
        le=64,
        description="exemplars of each unit on which its effective box is measured, 0: one box for each layer; "
        "default: up to 4, as many as take no longer than the scan, or 4,096 gradients",
    )
    precision: Precision = Field("fp32", description="fp32 is exact; tf32, bf16 and fp16 round, for GPUs")
    patch_memory_gb: float | None = Field(
        None, gt=0, description="memory that the nearest-patch index may take when served; default: 3, or the least"
    )
    device: str = Field("auto", description="auto, cpu or cuda")
    workers: int | None = Field(None, ge=1, le=4096, description="scanning processes; default: one per GPU or core")
    address: str | None = Field(None, description="address of a running Ray cluster; default: a local one")
    shard_size: int | None = Field(
        None, ge=1, le=1_000_000, description="files that a worker scans and commits at once; default: at most 1024"
    )
    segment_images: int = Field(
        4_000_000,
        ge=1,
        description="images that are ranked together at most: what bounds the memory of a ranking process",
    )
    most_pixels: int = Field(100_000_000, ge=1, description="larger pictures are skipped before decoding")
    keep: str | None = Field(
        None,
        pattern="^(all|top:[1-9][0-9]*)$",
        description="ranks that are stored of each unit: all, or top:K; default: as the atlas has it, else all",
    )
    max_errors: int | None = Field(None, ge=0, description="exit code 3 if more files are skipped; default: no limit")
    limit: int | None = Field(None, ge=1, description="index only the first so many files")
    add: bool = Field(False, description="take the corpus in beside those that the atlas has; by flag only")
    replace: bool = Field(False, description="let images of the atlas leave, and its other corpora; by flag only")

    @model_validator(mode="after")
    def _either_adds_or_replaces(self) -> Self:
        if self.add and self.replace:
            raise ValueError("either adds a corpus or replaces those of the atlas; give one of the two")
        return self

    @property
    def columns(self) -> ColumnChoice:
        """The columns that are named for the reading of lists and Parquet files."""
        return ColumnChoice(self.path_column, self.label_column, self.image_column)

    @property
    def patch_memory_bytes(self) -> int | None:
        """The memory that the patch index may take when it is served, in bytes; None where it is not said."""
        return None if self.patch_memory_gb is None else int(1e9 * self.patch_memory_gb)

    def rank_limit(self, before: int | None) -> int | None:
        """Return how many first ranks of each unit to store, None for all; `before`: those of the atlas as it is."""
        if self.keep is None:
            return before
        return None if self.keep == "all" else int(self.keep.removeprefix("top:"))


Config = TypeVar("Config", bound=BaseModel)


def load_config(kind: type[Config], section: str, flags: Mapping[str, Any], file: Path | None = None) -> Config:
    """Merge the file's section, `UNITSCOPE_…` variables and flags (None = not given) into one config.

    Raises UsageError for a missing file, an unknown key (naming the nearest) and a value out of range.
    """
    merged: dict[str, Any] = {}
    path = file or Path(DEFAULT_FILE)
    if file is not None or path.is_file():
        merged |= _read_section(path, section)
    for key in kind.model_fields:
        value = os.environ.get(f"UNITSCOPE_{key.upper()}")
        if value is not None:
            merged[key] = value.split() if key in ("layers", "latents") else value
    _check_variables(kind)
    for key in _FLAGS_ALONE:
        if key in merged:
            raise UsageError(f"{key} would hold for every run; give it on the command line alone")
    merged |= {key: value for key, value in flags.items() if value is not None}
    for key in merged:
        if key not in kind.model_fields:
            near = get_close_matches(key, kind.model_fields, n=1) or list(kind.model_fields)
            raise UsageError(f"{path}: unknown key {key!r} in [{section}]; did you mean {listing(near)}?")
    try:
        return kind(**merged)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{section} {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _check_variables(kind: type[BaseModel]) -> None:
    """Raise UsageError for a variable whose name is nearly that of a setting; others may be of other programs."""
    known = [f"UNITSCOPE_{key.upper()}" for key in kind.model_fields]
    for name in os.environ:
        if name.startswith("UNITSCOPE_") and name not in known and (near := get_close_matches(name, known, 1, 0.9)):
            raise UsageError(f"there is no variable {name}; did you mean {near[0]}?")


def _read_section(path: Path, section: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"config file {str(path)!r} cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"config file {str(path)!r} is not TOML: {error}") from None
    for key, value in content.items():
        if key != section and isinstance(value, dict):
            raise UsageError(f"{path}: there is no section [{key}]; did you mean [{section}]?")
        if key != section:
            raise UsageError(f"{path}: key {key!r} stands outside of a section; write it below [{section}]")
    values = content.get(section, {})
    if not isinstance(values, dict):
        raise UsageError(f"config file {str(path)!r}: [{section}] is not a table")
    if "trust_code" in values:
        raise UsageError(f"config file {str(path)!r}: a file cannot trust code; give --trust-code on the command line")
    return values
