"""The check of an atlas: bytes against digests, tables against what they were made of, rows against new forwards."""
