"""What is written down: identifiers, geometry, tables, manifest, paths and web messages."""
