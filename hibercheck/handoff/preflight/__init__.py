"""May this machine hibernate now: would each boot entry find the image, load it, and survive it."""
