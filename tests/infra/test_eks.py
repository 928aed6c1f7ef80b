"""infra/eks/: the cluster, its nodes and the role agree with the overlay `production`. No command of a cloud is run."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.support import ROOT
from tests.support.kubernetes import cluster_spec, objects, one

EKS = ROOT / "infra" / "eks"
README = (ROOT / "infra" / "README.md").read_text()
PRODUCTION = "overlays/production"
CLUSTER: dict[str, Any] = yaml.safe_load((EKS / "cluster.yaml").read_text())
NODES: list[dict[str, Any]] = list(yaml.safe_load_all((EKS / "nodes.yaml").read_text()))
POOLS = {each["metadata"]["name"]: each["spec"] for each in NODES if each["kind"] == "NodePool"}


def _accounts() -> dict[str, str]:
    """Returns the accounts of the overlay that have a role -> its ARN."""
    found = {
        each["metadata"]["name"]: each["metadata"].get("annotations", {}).get("eks.amazonaws.com/role-arn")
        for each in objects(PRODUCTION)
        if each["kind"] == "ServiceAccount"
    }
    return {name: role for name, role in found.items() if role is not None}


def test_the_role_trusts_the_accounts_that_have_it_and_no_others() -> None:
    (command,) = re.findall(r"sed \"s\|OIDC\|.*$", README, flags=re.M)
    script = f"OIDC=https://oidc.example/id/X; cd {ROOT}; {command.split(' > ')[0]}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    (statement,) = json.loads(done.stdout)["Statement"]
    (arn,) = {*_accounts().values()}
    account, role = re.fullmatch(r"arn:aws:iam::(\d+):role/(\w+)", arn).groups()
    assert statement["Principal"] == {"Federated": f"arn:aws:iam::{account}:oidc-provider/oidc.example/id/X"}
    assert statement["Condition"]["StringEquals"] == {
        "oidc.example/id/X:aud": "sts.amazonaws.com",
        "oidc.example/id/X:sub": [f"system:serviceaccount:tessera:{name}" for name in sorted(_accounts())],
    }
    assert {*re.findall(r"--role-name (\S+)", README)} == {role}


def test_the_role_may_write_the_dataset_only() -> None:
    night = yaml.safe_load(one(PRODUCTION, "ConfigMap")["data"]["nightly.yaml"])
    urls = [night["source"]["path"], *(each["encoder"]["checkpoint"] for each in night["features"].values())]
    read, written = {_bucket(url) for url in urls}, {_bucket(night["output"]["path"])}
    allowed: dict[str, set[str]] = {}
    for statement in json.loads((EKS / "permissions.json").read_text())["Statement"]:
        actions, resources = (_listed(statement[key]) for key in ("Action", "Resource"))
        for action in actions:
            allowed[action] = {each.removeprefix("arn:aws:s3:::") for each in resources}
    assert allowed == {
        "s3:ListBucket": read | written,
        "s3:GetObject": {f"{name}/*" for name in read | written},
        **{
            f"s3:{name}": {f"{next(iter(written))}/*"} for name in ("PutObject", "DeleteObject", "AbortMultipartUpload")
        },
    }
    for action in allowed:
        assert f"`{action}`" in README
    assert {*re.findall(r"aws s3 mb s3://(\S+)", README)} == read | written


def _bucket(url: str) -> str:
    return url.removeprefix("s3://").partition("/")[0]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize("group", [0, 1])
def test_each_worker_has_nodes_on_which_it_fits(group: int) -> None:
    worker = cluster_spec(PRODUCTION)["workerGroupSpecs"][group]
    pod = worker["template"]["spec"]
    machine = pod["nodeSelector"]["node.kubernetes.io/instance-type"]
    ((_, pool),) = [(name, pool) for name, pool in POOLS.items() if machine in _machines(pool)]
    taints = pool["template"]["spec"].get("taints", [])
    tolerated = {(each["key"], each["effect"]) for each in pod.get("tolerations", [])}
    assert {(each["key"], each["effect"]) for each in taints} == tolerated
    if group == 1:
        assert pool["template"]["metadata"]["labels"] == {"nvidia.com/gpu.present": "true"}, "the device plugin's"
        assert int(pool["limits"]["nvidia.com/gpu"]) == worker["maxReplicas"]
    else:
        assert int(pool["limits"]["cpu"]) >= 16 * worker["maxReplicas"]
    assert pool["disruption"]["consolidationPolicy"] == "WhenEmpty"


def _machines(pool: dict[str, Any]) -> list[str]:
    (found,) = [each for each in pool["template"]["spec"]["requirements"] if "instance-type" in each["key"]]
    assert found["operator"] == "In"
    return list(found["values"])


def test_nodes_belong_to_the_cluster() -> None:
    name = CLUSTER["metadata"]["name"]
    tag = {"karpenter.sh/discovery": name}
    (classes,) = [each for each in NODES if each["kind"] == "EC2NodeClass"]
    assert CLUSTER["metadata"]["tags"] == tag
    assert classes["spec"]["role"] == f"eksctl-KarpenterNodeRole-{name}"
    for key in ("subnetSelectorTerms", "securityGroupSelectorTerms"):
        assert classes["spec"][key] == [{"tags": tag}]
    assert classes["spec"]["instanceStorePolicy"] == "RAID0"
    for pool in POOLS.values():
        assert pool["template"]["spec"]["nodeClassRef"]["name"] == classes["metadata"]["name"]
    assert f"aws eks describe-cluster --name {name} " in README


def test_the_cluster_has_what_the_manifests_need() -> None:
    assert tuple(int(part) for part in CLUSTER["metadata"]["version"].split(".")) >= (1, 31)
    assert CLUSTER["iam"] == {"withOIDC": True}
    (network,) = [each for each in CLUSTER["addons"] if each["name"] == "vpc-cni"]
    assert json.loads(network["configurationValues"]) == {"enableNetworkPolicy": "true"}, "policies are enforced"


def test_each_file_is_used_by_a_command_of_the_readme() -> None:
    for path in EKS.iterdir():
        assert re.search(rf"infra/eks/{re.escape(path.name)}\b", README), path.name


def test_the_monitoring_is_where_the_policies_let_it_in() -> None:
    (policy,) = [each for each in objects(PRODUCTION) if each["metadata"]["name"] == "ray-nodes"]
    allowed = json.dumps(policy["spec"]["ingress"])
    (namespace,) = re.findall(r"kube-prometheus-stack --namespace (\S+)", README)
    assert f'"kubernetes.io/metadata.name": "{namespace}"' in allowed
    for selector in ("podMonitorSelector", "ruleSelector"):
        assert f"prometheus.prometheusSpec.{selector}NilUsesHelmValues=false" in README
    (days,) = re.findall(r"prometheusSpec.retention=(\d+)d", README)
    rules = (ROOT / "infra" / "prometheus" / "rules.yml").read_text()
    assert int(days) >= max(int(span) for span in re.findall(r"\[(\d+)d\]", rules)), "alerts look back so far"
