"""Which pods may connect to which: the network policies of every overlay, evaluated as Kubernetes defines them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.kubernetes import OVERLAYS, objects

ALL = [f"overlays/{name}" for name in OVERLAYS]


@dataclass(frozen=True)
class Peer:
    """A pod, or an address outside of the cluster."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = "tessera"
    address: str | None = None


def _of(component: str) -> Peer:
    return Peer({"app.kubernetes.io/part-of": "tessera", "app.kubernetes.io/component": component})


HEAD, WORKER, SUBMITTER = _of("head"), _of("worker"), _of("submitter")
STRANGER = Peer({"app": "x"})
ELSEWHERE = Peer({"app.kubernetes.io/component": "submitter"}, "default")
OPERATOR = Peer({"app.kubernetes.io/name": "kuberay-operator"}, "kuberay-system")
PROMETHEUS = Peer({"app.kubernetes.io/name": "prometheus"}, "monitoring")
DNS = Peer({"k8s-app": "kube-dns"}, "kube-system")
S3, METADATA = Peer(address="52.216.1.1"), Peer(address="169.254.169.254")


def _selects(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    selector = selector or {}
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def _is_peer(rule: dict[str, Any], peer: Peer) -> bool:
    if block := rule.get("ipBlock"):
        if peer.address is None:
            return False
        address = ipaddress.ip_address(peer.address)
        blocked = any(address in ipaddress.ip_network(one) for one in block.get("except", []))
        return address in ipaddress.ip_network(block["cidr"]) and not blocked
    if peer.address is not None:
        return False
    if "namespaceSelector" in rule:
        if not _selects(rule["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace}):
            return False
    elif peer.namespace != "tessera":
        return False
    return _selects(rule.get("podSelector"), peer.labels)


def _allows(policies: list[dict[str, Any]], pod: Peer, other: Peer, port: int, direction: str, protocol: str) -> bool:
    """Whether a pod of the namespace may be reached by, or reach, another; a pod that no policy selects may."""
    ours = [
        one["spec"]
        for one in policies
        if direction in one["spec"]["policyTypes"] and _selects(one["spec"]["podSelector"], pod.labels)
    ]
    if not ours:
        return True
    key, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    for rule in (rule for one in ours for rule in one.get(key, [])):
        ports = rule.get("ports")
        fits = ports is None or any(each["port"] == port and each.get("protocol", "TCP") == protocol for each in ports)
        if fits and (peers not in rule or any(_is_peer(each, other) for each in rule[peers])):
            return True
    return False


def _reaches(overlay: str, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    policies = [one for one in objects(overlay) if one["kind"] == "NetworkPolicy"]
    ends = [(source, target, "Egress"), (target, source, "Ingress")]
    inside = [end for end in ends if end[0].namespace == "tessera" and end[0].address is None]
    return all(_allows(policies, pod, other, port, way, protocol) for pod, other, way in inside)


@pytest.mark.parametrize("overlay", ALL)
def test_what_is_allowed(overlay: str) -> None:
    for source, target, port in [
        (WORKER, HEAD, 6379),
        (WORKER, HEAD, 30123),  # ports of Ray's own choice
        (HEAD, WORKER, 30123),
        (WORKER, WORKER, 30123),
        (SUBMITTER, HEAD, 8265),
        (OPERATOR, HEAD, 8265),
        (PROMETHEUS, HEAD, 8080),
        (PROMETHEUS, WORKER, 8080),
        (HEAD, Peer(address="10.0.12.5"), 6443),  # the Kubernetes API
    ]:
        assert _reaches(overlay, source, target, port), (source, target, port)
    for pod in (HEAD, WORKER, SUBMITTER):
        assert _reaches(overlay, pod, DNS, 53, "UDP")


@pytest.mark.parametrize("overlay", ALL)
def test_what_is_not(overlay: str) -> None:
    for source, target, port in [
        (SUBMITTER, HEAD, 6379),
        (SUBMITTER, WORKER, 8265),
        (SUBMITTER, S3, 9000),
        (SUBMITTER, Peer(address="10.0.12.5"), 6443),
        (STRANGER, HEAD, 8265),
        (STRANGER, WORKER, 8080),
        (ELSEWHERE, HEAD, 8265),
        (OPERATOR, HEAD, 6379),
        (PROMETHEUS, HEAD, 8265),
        (WORKER, Peer({}, "default"), 8080),
        (WORKER, Peer(address="10.0.12.5"), 6443),
        *((pod, METADATA, port) for pod in (HEAD, WORKER, SUBMITTER) for port in (80, 443)),
        (STRANGER, S3, 443),
        (ELSEWHERE, STRANGER, 80),
    ]:
        assert not _reaches(overlay, source, target, port), (source, target, port)


@pytest.mark.parametrize("overlay", ALL)
def test_storage_is_reached_by_those_that_read_and_write_it(overlay: str) -> None:
    storage, port = (Peer({"app": "minio"}, "minio"), 9000) if overlay == "overlays/dev" else (S3, 443)
    for pod in (HEAD, WORKER):
        assert _reaches(overlay, pod, storage, port)


@pytest.mark.parametrize("overlay", ALL)
def test_the_webhook_is_reached_by_the_submitter(overlay: str) -> None:
    assert _reaches(overlay, SUBMITTER, Peer(address="203.0.113.7"), 443)
    assert not _reaches(overlay, SUBMITTER, Peer(address="203.0.113.7"), 80)


def test_dev_reaches_no_worker_outside() -> None:
    assert not _reaches("overlays/dev", WORKER, S3, 443)
