"""How each kind of corpus is listed: tar shards, Parquet files, lists of paths."""
