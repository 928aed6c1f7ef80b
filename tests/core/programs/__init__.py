"""Programs that the tests of this folder run as separate processes."""
