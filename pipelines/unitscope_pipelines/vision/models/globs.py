"""Globs on module paths."""

from fnmatch import fnmatchcase


def matches(path: str, glob: str) -> bool:
    """Return whether a module path fits a glob component by component; `**` fits any number of components."""
    if "**" in glob:
        return fnmatchcase(path, glob.replace("**", "*"))
    parts, patterns = path.split("."), glob.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
