"""Programs that the measurements of this folder run as separate processes."""
