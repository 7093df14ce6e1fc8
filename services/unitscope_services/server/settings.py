"""What a server is told when it starts."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Settings say which atlases are served, to whom, and within which limits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    atlases: tuple[str | Path, ...] = ()
    corpora: tuple[str, ...] = Field(
        (),
        description="folders below which alone pictures are read, beside each atlas's own: ROOT for all atlases, or "
        "NAME=ROOT for one; where none holds the recorded folder, the first is where that is now",
    )
    annotations: Path | None = Field(
        None, description="folder for what people write about units and images; none: beside each atlas"
    )
    cache: Path | None = Field(
        None, description="folder for parts of atlases in object stores; none: as UNITSCOPE_CACHE"
    )
    cache_gb: float | None = Field(None, gt=0, description="most that it holds; none: as UNITSCOPE_CACHE_GB")
    key_file: Path | None = Field(None, description="lines `name scope[,scope] sha256hex`; none: no keys")
    anonymous_read: bool = Field(False, description="without a key: only reading")
    preload: bool = Field(False, description="load what runs models before the first request is answered")
    check_parts: bool = Field(True, description="digest each part of an atlas when it is first read")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="names it is asked by, `*.NAME` for those below one; numbers and localhost are always allowed"
    )
    trust_code: bool = Field(False, description="build models from the files of code that atlases name")
    upload_bytes: int = Field(20_000_000, ge=1, description="longest request body")
    upload_pixels: int = Field(50_000_000, ge=1)
    uploads_kept: int = Field(64, ge=1, description="more push the oldest out")
    uploads_kept_bytes: int = Field(256_000_000, ge=1)
    upload_lifetime_s: float = Field(3600, gt=0)
    question_timeout_s: float = Field(5, gt=0, description="of one statement to the database")
    forwards_waiting: int = Field(
        8, ge=0, description="one forward runs in each process, so many wait, the next are refused"
    )
    live_at_once: int = Field(8, ge=0, description="live pages with an open connection to a process; more are refused")
    live_idle_s: float = Field(60, gt=0, description="a connection that asks nothing for so long is closed")
    jobs_running: int = Field(1, ge=1, description="of each process; each holds a model of its own, and a core")
    jobs_waiting: int = Field(8, ge=0, description="more are refused")
    jobs_kept: int = Field(64, ge=0, description="jobs that ended and are still told about")
    grace_s: float = Field(10, ge=0, description="time that requests have to end when the server is told to stop")
    pictures_at_once: int = Field(4, ge=1, description="decoded at once; 150 MB each at the pixel limit")
    requests_per_s: float = Field(
        0, ge=0, le=1_000_000, description="that each key or address may send to a process; 0: no limit"
    )
    memory_floor_bytes: int = Field(256_000_000, ge=0, description="with less memory left, costly work is refused")
