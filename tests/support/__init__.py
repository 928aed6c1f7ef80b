"""What tests of several parts use: fault servers, hand-made Parquet, a dataset written without an engine."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder."""
