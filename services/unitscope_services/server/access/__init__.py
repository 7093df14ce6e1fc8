"""Who may ask what, and from where: keys and their file, readers, hosts and origins."""
