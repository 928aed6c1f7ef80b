"""Programs that the helpers of this folder run as separate processes."""
