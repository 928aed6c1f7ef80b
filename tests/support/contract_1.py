"""Makes a dataset what a Tessera of contract 1 would have left: the folder of failures, the names and the keys."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.config import identity
from pipeline.config.bound import BoundConfig


def downgrade(root: Path, prepared: BoundConfig | None = None) -> None:
    """Rewrites the version at ``root``. ``prepared``: of the config that it was made with, where it was."""
    for folder in (root, *(root / "_runs").glob("*/pending"), root / "_superseded"):
        if (folder / "_failures").is_dir():
            (folder / "_failures").rename(folder / "failures")
    features = {}
    if prepared is not None:
        features = {one.name: identity.as_in_contract_1(one.full_identity) for one in prepared.features}
    for path in (root / "_snapshots").glob("*.json"):
        text = path.read_text().replace('"_failures/', '"failures/').replace("/_failures/", "/failures/")
        values = json.loads(text)
        values["contract"] = 1
        if features:
            values["features"]["features"] = features
        path.write_text(json.dumps(values, indent=1))
