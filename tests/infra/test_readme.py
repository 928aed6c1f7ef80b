"""infra/README.md: its commands parse, its files exist, and its sums are right and made of measured figures."""

from __future__ import annotations

import ast
import operator
import re
from typing import Any

import pytest

import pipeline
from tests.infra.commands import parse
from tests.support import ROOT
from tests.support.kubernetes import OVERLAYS, one

TEXT = (ROOT / "infra" / "README.md").read_text()
MEASURED = (ROOT / "docs" / "performance.md").read_text()


def _lines() -> list[str]:
    return [line.strip() for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.S) for line in block.splitlines()]


def _commands() -> list[str]:
    found = [line.rpartition(" -- ")[2] for line in _lines() if " -- tessera " in line]
    return sorted({*found, *(word for word in re.findall(r"`(tessera [^`]+)`", TEXT))})


def test_commands_were_found() -> None:
    assert {command.split()[1] for command in _commands()} >= {"doctor", "inspect", "benchmark", "models"}


@pytest.mark.parametrize("command", _commands())
def test_every_command_parses(command: str) -> None:
    parse(command)


def test_what_commands_name_is_there() -> None:
    assert set(re.findall(r"apply -k (\S+)", TEXT)) == {f"infra/kuberay/overlays/{name}" for name in OVERLAYS}
    assert {
        path for path in re.findall(r"(?:--file |kustomize )(infra/\S+)", TEXT) if not (ROOT / path).exists()
    } == set()
    assert set(re.findall(r"tessera:(\d[\d.]*)-", TEXT)) == {pipeline.__version__}
    assert set(re.findall(r"cronjob/([\w-]+)", TEXT)) == {one("overlays/production", "CronJob")["metadata"]["name"]}
    assert set(re.findall(r"torch (\d[\d.]*\d)", TEXT)) == set(
        re.findall(r"^torch==(.*)$", (ROOT / "requirements.lock").read_text(), flags=re.M)
    )
    for overlay in OVERLAYS:
        assert f"`kuberay/overlays/{overlay}`" in TEXT


def test_secrets_have_the_names_that_pods_refer_to() -> None:
    created = set(re.findall(r"create secret generic (\S+)", TEXT))
    referred = set()
    for overlay in ("overlays/dev", "overlays/production"):
        container = one(overlay, "RayCluster")["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        referred |= {each["secretRef"]["name"] for each in container.get("envFrom", [])}
        referred |= {
            each["valueFrom"]["secretKeyRef"]["name"]
            for each in container["env"]
            if "secretKeyRef" in each.get("valueFrom", {})
        }
    assert created == referred
    assert "url_env: TESSERA_WEBHOOK_URL" in TEXT
    assert "featureGates[0].name=RayCronJob" in TEXT


# -- sums ----------------------------------------------------------------------------------------------


def test_cores_are_rows_times_seconds_of_measured_figures() -> None:
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", TEXT, flags=re.M)
    assert len(rows) >= 6
    for workload, rows_per_s, decode_ms, cores in rows:
        assert float(cores) == pytest.approx(float(rows_per_s) * float(decode_ms) / 1000, abs=0.06), workload
        if "/ 8 windows" not in workload:
            assert re.search(rf"\| {re.escape(rows_per_s)} \|", MEASURED), f"{workload}: {rows_per_s} was not measured"
        assert re.search(rf"\| {re.escape(decode_ms)} \+ ", MEASURED), f"{workload}: {decode_ms} ms was not measured"


def test_costs_are_what_the_calculations_give() -> None:
    rows = re.findall(r"^\| (.+?) \| `([^`]+)` \| (\$?)([\d.]+)(?: \w+)? \|$", TEXT, flags=re.M)
    assert len(rows) >= 10
    for what, calculation, _, result in rows:
        assert _value(ast.parse(calculation, mode="eval").body) == pytest.approx(float(result), rel=0.01), what
    results = {calculation: float(result) for _, calculation, _, result in rows}
    used = [
        value for calculation, value in results.items() if calculation.endswith(("63.296", "0.0004", "1000 * 0.005"))
    ]
    (total,) = re.findall(r"a first run costs about \$([\d,]+)", TEXT)
    assert sum(used[:3]) == pytest.approx(float(total.replace(",", "")), rel=0.01)
    (hours,) = re.findall(r"Eight GPUs take (\d+) hours", TEXT)
    assert int(hours) == round(results["1e9 / 2311 / 3600"] / 8)


_OPERATORS = {ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow}


def _value(node: Any) -> float:
    if isinstance(node, ast.BinOp):
        return float(_OPERATORS[type(node.op)](_value(node.left), _value(node.right)))
    return float(node.value)
