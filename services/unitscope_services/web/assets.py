"""What pages are made of: templates, the style sheet, and how figures are written in them."""

import hashlib
import math
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from unitscope_services.server.caching import package_version

_HERE = Path(__file__).parent
_TEMPLATES, _STATIC = _HERE / "templates", _HERE / "static"


@dataclass(frozen=True)
class StaticFile:
    """A file that never changes under its digest."""

    content: bytes
    media_type: str
    digest: str


def read_static() -> dict[str, StaticFile]:
    """Return all static files by name."""
    return {path.name: _static_file(path) for path in sorted(_STATIC.iterdir()) if path.is_file()}


def pages_digest() -> str:
    """Return the digest of all templates and static files: how pages look."""
    digest = hashlib.sha256()
    for path in sorted([*_TEMPLATES.iterdir(), *_STATIC.iterdir()]):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def make_templates(static: dict[str, StaticFile]) -> Environment:
    """Return the templates with everything escaped; an unknown name in one is an error."""
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters |= {
        "figure": figure,
        "percent": percent,
        "count": count,
        "day": day,
        "score": "{:.3f}".format,
        "counted": counted,
    }
    templates.globals |= {
        "static": lambda name: f"/static/{name}?v={static[name].digest}",
        "package_version": package_version(),
        "home": "/",
        "docs": "/docs",
        "scripts": True,
        "signed_in": None,
        "bar": None,
        "written": None,
        "computes": False,
        "takes_keys": False,
        "came_from": None,
    }
    return templates


def figure(value: float | None, digits: int = 4) -> str:
    """Write a measured number with so many significant digits, and a true minus sign."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}g}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.{digits - 1}e}"
    return text.replace("-", "−")


def percent(share: float | None) -> str:
    """Write a share as a percentage, with as many digits as it takes not to be rounded up to 100."""
    if share is None or not math.isfinite(share):
        return "–"
    digits = 1 if not 0.99 < share < 1 else max(1, math.ceil(-math.log10(100 * (1 - share))))
    scaled = math.floor(share * 100 * 10**digits + 1e-6) / 10**digits
    return f"{scaled:.{digits}f}".rstrip("0").rstrip(".") + " %"


def count(number: int) -> str:
    """Write a whole number with its thousands apart."""
    return f"{number:,}".replace(",", "\u202f")


def counted(number: int, one: str, many: str | None = None) -> str:
    """Write a number with its noun: 1 layer, 3 layers."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def day(moment: str) -> str:
    """Return the day of an ISO moment."""
    return moment[:10]


def _static_file(path: Path) -> StaticFile:
    content = path.read_bytes()
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if media_type.startswith("text/"):
        media_type += "; charset=utf-8"
    return StaticFile(content, media_type, hashlib.sha256(content).hexdigest()[:16])
