"""Arms as devices, one file each."""
