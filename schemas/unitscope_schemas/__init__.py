"""The package of what is written down: identifiers, geometry, tables, manifest, paths and web messages."""
