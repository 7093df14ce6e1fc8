"""What a running server holds: its atlases, uploads, jobs, keys and limits."""
