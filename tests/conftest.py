"""Fixtures that many tests share: the real media, small checkpoints, one Ray, one finished dataset."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import hypothesis
import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support import ROOT

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell without job control does that to what it starts with &
    signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("any machine")
hypothesis.settings.load_profile("any machine")

LONG = (
    "engine/test_encoder_deaths",
    "sandbox/test_stage",
    "decoders/test_video_pyav",
    "jobs/test_cli",
    "jobs/test_cli_output",
    "test_docs",
    "run/test_extraction",
    "end_to_end/test_chaos",
    "end_to_end/test_nights",
    "end_to_end/test_hostile",
    "dataset/test_reader",
)
"""Modules that take minutes, which start first."""
WORKER_BYTES = 6 << 30
"""What a process of `pytest -n` takes at most, with its Ray, its fork server and the processes of a run."""


CPUS = {
    "avx2": {  # each library's own variable for the instructions that it may use; worker processes inherit them
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "ARROW_USER_SIMD_LEVEL": "AVX2",
    },
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cpu",
        choices=sorted(CPUS),
        help="run as on a CPU of this kind: oneDNN, PyTorch, MKL, OpenBLAS and Arrow use no newer instructions",
    )


def pytest_configure(config: pytest.Config) -> None:
    if kind := config.getoption("--cpu"):
        assert "torch" not in sys.modules, "PyTorch reads the variables once"
        os.environ |= CPUS[kind]


def pytest_xdist_auto_num_workers() -> int:
    """One for each core that this process may use, as far as memory goes: each has a Ray of its own."""
    free = psutil.virtual_memory().available
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            free = min(free, int(Path(limit).read_text()))
    return max(1, min(len(os.sched_getaffinity(0)), free // WORKER_BYTES))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("vnni"):
        from pipeline.encoders._shared import int8

        if not int8.is_supported():
            pytest.skip("int8 needs a CPU with AVX512-VNNI")


class RayTogetherScheduling(LoadScopeScheduling):
    """Runs the tests of a module in one process, and those of all modules that use the session's Ray in the same one,
    so that one Ray starts."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.split("::", 1)[0]
        return "ray" if _uses_ray(module) else module


@functools.cache
def _uses_ray(module: str) -> bool:
    text = (ROOT / module).read_text()
    return "ray_session" in text or "shared_ray" in text


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> RayTogetherScheduling:
    return RayTogetherScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that take minutes come first: whoever runs the last of them runs alone. Marks the tests of S3."""
    for item in items:
        if "s3" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.s3)
    place, tests = {name: number for number, name in enumerate(LONG)}, ROOT / "tests"
    items.sort(key=lambda item: place.get(item.path.relative_to(tests).with_suffix("").as_posix(), len(LONG)))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real media. Tests that need it are left out where it is not."""
    folder = Path(os.environ.get("TESSERA_DATA", ROOT.parent / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"real media not found at {folder}: set TESSERA_DATA to their folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the session: tests neither read nor fill the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Any]:
    """One local Ray of two CPUs for the whole session, whatever the machine has. Its workers are kept between runs, as
    `pipeline.engine.ray.cluster` keeps them: starting one takes a core seconds."""
    import logging

    import ray

    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "3600000")
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    for attempt in (1, 2, 3):
        ray.shutdown()  # one that a run of another test has left has as many CPUs as the machine
        try:
            ray.init(address="local", num_cpus=2, **options)
            break
        except Exception as error:  # Ray gives a node 30 s to start, which a busy machine may not
            if attempt == 3 or "timed out during startup" not in str(error):
                raise
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def fork_server() -> Any:
    """One process with the imports of all stages, from which those of this session's runs fork."""
    from tests.support import local_runs

    return local_runs.fork_server()


@pytest.fixture(scope="session")
def prepare() -> Callable[..., Any]:
    """`run.prepare` for a run whose processes fork from ``fork_server``."""
    from tests.support import local_runs

    return local_runs.prepare


@pytest.fixture
def shared_ray(ray_session: Any) -> dict[str, str]:
    """Environment in which commands join the session's Ray: starting one takes longer than most of what they do."""
    import ray

    return {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo checkpoints, as `tessera models` writes them."""
    from pipeline.demo import models as demo

    return _once("models", demo.build, tmp_path_factory)


@pytest.fixture(scope="session")
def demo_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's corpus."""
    from pipeline.demo import corpus

    return _once("corpus", corpus.build, tmp_path_factory)


@pytest.fixture(scope="session")
def first_dataset(models: Path, demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the README's first config. Tests copy it before they change it."""
    from tests.support import first_dataset

    return _once("first", lambda out: first_dataset.extract(demo_corpus, models, Path(out)), tmp_path_factory)


def _once(name: str, build: Callable[[str], object], factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of `pytest -n` share."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with filelock.FileLock(f"{folder}.lock"):
        if not folder.exists():
            build(str(folder))
    return folder


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 server with an empty bucket ``corpus``; gives the `s3fs` file system that talks to it: one on this machine,
    or that of ``TESSERA_TEST_S3``, with the credentials of the environment."""
    import s3fs

    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    endpoint = os.environ.get("TESSERA_TEST_S3")
    with nullcontext(endpoint) if endpoint else _moto(monkeypatch) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        s3fs.S3FileSystem.clear_instance_cache()
        fs = s3fs.S3FileSystem()
        if fs.exists("corpus"):
            fs.rm("corpus", recursive=True)
            fs.invalidate_cache()
        if not fs.exists("corpus"):
            fs.mkdir("corpus")
        yield fs
        s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def _moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Supplies the URL of moto's server in this process, which is empty."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
    yield url
    server.stop()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts of a few milliseconds, for a third of a second."""
    from pipeline.storage import retry, settings

    hasty = settings.StorageConfig(max_wait_s=0.3).model_dump_json()
    monkeypatch.setenv("TESSERA_STORAGE", hasty)
    monkeypatch.setattr(settings, "_given", hasty)
    monkeypatch.setattr(retry, "BASE_S", 0.001)
    monkeypatch.setattr(retry, "MAX_S", 0.005)


@pytest.fixture
def called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """The `tessera` command in this process, where the imports are done: its exit code, output and errors."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    from jobs import cli

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(ROOT)

    def call(*args: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["tessera", *args])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        reported = capsys.readouterr()
        return subprocess.CompletedProcess(args, ended.value.code or 0, reported.out, reported.err)  # type: ignore[arg-type]

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def extracting(
    called: Callable[..., Any], fork_server: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``called``, for commands that extract: their processes fork from ``fork_server``."""
    from pipeline.config import features
    from pipeline.run import fork_server as run_fork_server

    def started(config: Any, engine: Any = None) -> Any:
        address, bind = fork_server.address, lambda: features.bind(config)
        return nullcontext(SimpleNamespace(address=address, features=bind, start=lambda: None))

    monkeypatch.setattr(run_fork_server, "started", started)
    return called
