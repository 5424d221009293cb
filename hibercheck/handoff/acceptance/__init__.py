"""Whether the resumer loads the image at all."""
