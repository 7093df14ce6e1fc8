"""Where bytes lie: folders and object stores, parts written atomically, one writer at a time, original pictures."""
