"""What a run asks of an object store: `python -m tests.measure.requests_per_object FOLDER [OBJECTS]`.

Puts OBJECTS (20) real files of each kind into a bucket of moto's server, extracts them on the engine ``local`` with the
demo's models (written into FOLDER) through a proxy that counts, and prints requests and bytes per object by extension.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

from pipeline import run
from pipeline.demo import models
from pipeline.run import fork_server
from tests.measure.regimes import DATA
from tests.stages.media_fixtures import media_config
from tests.support.faulty_proxy import FaultyProxy

KINDS = ("jpg", "png", "txt", "html", "wav", "flac", "mp3", "ogg", "mp4", "webm", "mkv")
S3 = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}


def main() -> None:
    import s3fs
    from moto.server import ThreadedMotoServer

    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    models.build(folder / "models")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with FaultyProxy(f"http://{host}:{port}") as proxy, patch.dict(os.environ, {**S3, "AWS_ENDPOINT_URL": proxy.url}):
        fs = s3fs.S3FileSystem()
        fs.mkdir("corpus")
        sizes = _upload(fs, int(sys.argv[2]) if len(sys.argv) > 2 else 20)
        with tempfile.TemporaryDirectory() as out:
            settings = media_config(
                folder / "models", "s3://corpus/", Path(out) / "dataset", "failures.max_fraction=1.0"
            )
            proxy.requests.clear()
            with fork_server.started(settings, "local") as forks:
                report = run.extract(run.prepare(settings, False, forks, "local"), show_progress=False)
        _print(sizes, proxy.requests, report)
    server.stop()


def _upload(fs: Any, each: int) -> dict[str, int]:
    """Puts files into the bucket. Returns key -> bytes."""
    sizes = {}
    for kind in KINDS:
        found = sorted(
            path for part in ("images", "audio", "videos", "text") for path in (DATA / part).rglob(f"*.{kind}")
        )
        for path in found[:each]:
            key = f"{kind}/{len(sizes):05d}.{kind}"
            fs.put_file(str(path), f"corpus/{key}")
            sizes[key] = path.stat().st_size
    return sizes


def _print(sizes: dict[str, int], requests: list[tuple[str, str, int]], report: dict[str, Any]) -> None:
    counts, sent = Counter[str](), Counter[str]()
    others = Counter[str]()
    for method, path, size in requests:
        key = unquote(urlsplit(path).path).removeprefix("/corpus/")
        if key in sizes:
            counts[key.partition("/")[0]] += 1
            sent[key.partition("/")[0]] += size
        else:
            others[method] += 1
    for kind in KINDS:
        objects = [size for key, size in sizes.items() if key.startswith(f"{kind}/")]
        if objects:
            print(
                f"{kind}: {len(objects)} objects of {sum(objects) / len(objects) / 1e3:.0f} kB: "
                f"{counts[kind] / len(objects):.1f} requests and {sent[kind] / sum(objects):.2f} times its bytes each"
            )
    print(f"listing and others: {dict(others)}; rows {report['rows_written']}, failed {report['rows_failed']}")


if __name__ == "__main__":
    main()
