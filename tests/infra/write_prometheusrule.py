"""Writes infra/prometheus/prometheusrule.yaml from rules.yml: `python -m tests.infra.write_prometheusrule`."""

from __future__ import annotations

from tests.infra.prometheus_server import FOLDER

HEAD = """\
# The rules of rules.yml for the Prometheus operator. Written by `python -m tests.infra.write_prometheusrule`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tessera
  labels:
    app.kubernetes.io/part-of: tessera
spec:
"""


def as_kubernetes(rules: str) -> str:
    """Returns the manifest for the text of rules.yml, whose comments stay."""
    body = rules[rules.index("groups:") :]
    return HEAD + "".join(f"  {line}\n" if line else "\n" for line in body.splitlines())


if __name__ == "__main__":
    (FOLDER / "prometheusrule.yaml").write_text(as_kubernetes((FOLDER / "rules.yml").read_text()))
