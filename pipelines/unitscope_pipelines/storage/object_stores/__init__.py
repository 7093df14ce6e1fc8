"""What lies in an object store that speaks S3: corpora, atlases and the lock of who writes one."""
