"""The record that every entry of a manifest is."""

from pydantic import BaseModel, ConfigDict


class Entry(BaseModel):
    """A frozen record of the manifest; names that it does not know are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)
