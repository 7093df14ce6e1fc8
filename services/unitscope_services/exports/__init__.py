"""Exports that need no server: tables, and a bundle of pages."""
