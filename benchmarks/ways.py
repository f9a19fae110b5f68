"""The ways to get a model served, side by side: what goes over the user's machine, and when the first answer comes.

A BLOOM of random weights (1 GB) behind the Hub stand-in, moto's S3, and the native server as a process; each way from
the change of a line to the first answer, and once more for a second endpoint on the same weights:

- repackaged: the tutorial's workaround. Download, add code/requirements.txt, pack, upload; SageMaker unpacks it.
- code only: the same requirements in an archive of their own (`InferenceCode`); the container loads from the Hub.
- extended: the image carries what is new (`ExtendedDlc`); the container loads from the Hub. Its layer is pushed once.
- mirrored: `MirroredModel`'s own program copies the Hub's files to S3, SageMaker copies them to the instance.

    python benchmarks/ways.py [--gigabytes 1] [--runs 3] [--json FILE]

What all ways share is left out: CloudFormation, the start of an instance, the pull of the image. Everything is on one
machine, so the network costs nothing, and repackaging, which needs it most, is flattered.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import boto3
from candidates import free_port
from werkzeug.serving import make_server

from extended_dlc.programs import copy_model as _mirror_copy
from extended_dlc.rehearsal import hub

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "docker" / "inference"
BUCKET = "extended-dlc-models-123456789012-us-east-1"
REQUIREMENTS = b"sentencepiece\n"
LAYER_BYTES = 93_100_000
"""The layer's size as image_layer.py measures it, before its compression for the push."""

FEWER, DISK_SPEED = 20, 1.3
BLOOM_BYTES, TUTORIAL_HOURS = 352e9, 12
LINE_BYTES_A_SECOND = 1e9 / 8
"""A line of 1 Gbit/s between the user's machine and the world, for the computed line: few have a better one."""

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}


def make_model(folder: Path, gigabytes: float) -> None:
    """A BLOOM of that size, with the tiny one's tokenizer, in files of 250 MB."""
    subprocess.run([sys.executable, IMAGE / "tiny_models.py", folder.parent, f"bloom:1={folder.name}"], check=True)
    import torch
    from transformers import AutoConfig, BloomForCausalLM

    config = AutoConfig.from_pretrained(folder)
    config.hidden_size, config.n_head = 1024, 16
    config.n_layer = max(1, round(gigabytes * 1e9 / (4 * 12 * 1024**2)))
    for file in folder.glob("*.safetensors"):
        file.unlink()
    torch.manual_seed(1)
    BloomForCausalLM(config).save_pretrained(folder, max_shard_size="250MB")


class World:
    """The Hub, S3, and a count of the bytes that the user's machine transfers."""

    def __init__(self, root: Path, hub_address: str, aws: str) -> None:
        self.root, self.hub, self.aws = root, hub_address, aws
        self.down = self.up = 0
        session = boto3.Session("testing", "testing", region_name="us-east-1")
        self.s3 = session.client("s3", endpoint_url=aws)
        self.model = root / "hub" / "acme" / "large"
        self.commit = hub.Snapshot(model="acme/large", folder=self.model, private=False).commit()
        self.prefix = f"models/acme/large/{self.commit}/"

    def upload(self, key: str, file: Path) -> None:
        """Upload a file from the user's machine."""
        self.up += file.stat().st_size
        self.s3.upload_file(str(file), BUCKET, key)

    def deliver(self, key: str, model: Path) -> None:
        """Do what SageMaker does before it starts the container: unpack an archive, or copy a prefix."""
        model.mkdir(parents=True)
        if key.endswith("/"):
            listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=key)["Contents"]
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda entry: self._fetch(entry["Key"], model / entry["Key"].removeprefix(key)), listed))
            return
        with tarfile.open(fileobj=self.s3.get_object(Bucket=BUCKET, Key=key)["Body"], mode="r|gz") as archive:
            archive.extractall(model, filter="data")

    def _fetch(self, key: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        body = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"]
        with target.open("wb") as file:
            shutil.copyfileobj(body, file, 1024 * 1024)


# -- the ways: each returns what a container is started with -----------------------------------------------------------


def repackaged(world: World, work: Path, *, second: bool) -> dict[str, str]:
    key = "repackaged.tar.gz"
    if not second:
        folder = work / "download"
        _download(world, folder)
        (folder / "code").mkdir()
        (folder / "code" / "requirements.txt").write_bytes(REQUIREMENTS)
        archive = work / "model.tar.gz"
        with tarfile.open(archive, "w:gz", compresslevel=6) as packed:  # `tar czf`, as the tutorial has it
            packed.add(folder, ".", filter=lambda entry: None if "/.cache" in entry.name else entry)
        world.upload(key, archive)
    world.deliver(key, work / "ml" / "model")
    return {}


def _download(world: World, folder: Path) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download("acme/large", local_dir=folder, endpoint=world.hub)
    world.down += sum(file.stat().st_size for file in folder.glob("*") if file.is_file())


def code_only(world: World, work: Path, *, second: bool) -> dict[str, str]:
    key = "code.tar.gz"
    if not second:
        archive = work / key
        with tarfile.open(archive, "w:gz") as packed:
            entry = tarfile.TarInfo("code/requirements.txt")
            entry.size = len(REQUIREMENTS)
            packed.addfile(entry, io.BytesIO(REQUIREMENTS))
        world.upload(key, archive)
    world.deliver(key, work / "ml" / "model")
    return {"HF_MODEL_ID": "acme/large", "HF_MODEL_REVISION": world.commit}


def extended(world: World, work: Path, *, second: bool) -> dict[str, str]:
    world.up += 0 if second else LAYER_BYTES
    return {"HF_MODEL_ID": "acme/large", "HF_MODEL_REVISION": world.commit}


def mirrored(world: World, work: Path, *, second: bool) -> dict[str, str]:
    if not second:
        program = Path(_mirror_copy.__file__)
        world.up += program.stat().st_size
        arguments = {"model": "acme/large", "revision": world.commit, "bucket": BUCKET, "prefix": world.prefix}
        subprocess.run(
            [sys.executable, "-I", program, *(f"--{name}={value}" for name, value in arguments.items()), "--threads=4"],
            env={**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": world.aws, "HF_ENDPOINT": world.hub},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    world.deliver(world.prefix, work / "ml" / "model")
    return {"HF_HUB_OFFLINE": "1"}


WAYS: dict[str, Callable[..., dict[str, str]]] = {
    "repackaged": repackaged,
    "code only": code_only,
    "extended": extended,
    "mirrored": mirrored,
}


def answer(world: World, work: Path, environment: dict[str, str]) -> None:
    """Start the server over `work/ml` and wait for an answer."""
    port = free_port()
    variables = {
        **os.environ,
        **{"SAGEMAKER_BASE_DIR": str(work / "ml"), "SAGEMAKER_BIND_TO_PORT": str(port), "HF_TASK": "text-generation"},
        **{"HF_ENDPOINT": world.hub, "HF_HOME": str(work / "cache"), "PYTHONPATH": str(IMAGE), **environment},
        # the same for all: what is installed is no matter of where the weights are
        "EXTENDED_DLC_INSTALL_REQUIREMENTS": "false",
    }
    (work / "ml" / "model").mkdir(parents=True, exist_ok=True)
    log = (work / "log.txt").open("w")
    server = subprocess.Popen([sys.executable, "-m", "extended_dlc_server"], env=variables, stdout=log, stderr=log)
    try:
        body = json.dumps({"inputs": "hello world", "parameters": {"max_new_tokens": 2}}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        while server.poll() is None:
            try:
                urllib.request.urlopen(request, timeout=60).read()
                return
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit((work / "log.txt").read_text())
    finally:
        server.terminate()
        server.wait()
        log.close()


def measure(world: World, way: str) -> dict[str, float]:
    """One way: first endpoint and second one."""
    world.down = world.up = 0
    figures: dict[str, float] = {}
    for moment in ("first", "second"):
        with tempfile.TemporaryDirectory(dir=world.root) as folder:
            started = time.monotonic()
            environment = WAYS[way](world, Path(folder), second=moment == "second")
            figures[f"{moment}_before_start"] = time.monotonic() - started
            answer(world, Path(folder), environment)
            figures[moment] = time.monotonic() - started
        if moment == "first":
            figures |= {"down": world.down, "up": world.up}
    for found in world.s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        world.s3.delete_object(Bucket=BUCKET, Key=found["Key"])
    return figures


def copy_and_load(world: World) -> float:
    """The speed of the disk: a plain copy of the files, and the direct load of the copy."""
    with tempfile.TemporaryDirectory(dir=world.root) as folder:
        started = time.monotonic()
        shutil.copytree(world.model, Path(folder) / "ml" / "model")
        answer(world, Path(folder), {"HF_HUB_OFFLINE": "1"})
        return time.monotonic() - started


@contextmanager
def world_of(gigabytes: float) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="extended-dlc-ways-") as folder:
        root = Path(folder)
        make_model(root / "hub" / "acme" / "large", gigabytes)
        real = make_server("127.0.0.1", 0, hub.Hub(root / "hub"), threaded=True, request_handler=hub._Handler)
        threading.Thread(target=real.serve_forever, daemon=True).start()
        port = free_port()
        aws = subprocess.Popen(
            [Path(sys.executable).with_name("moto_server"), "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            world = World(root, f"http://127.0.0.1:{real.port}", f"http://127.0.0.1:{port}")
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            world.s3.create_bucket(Bucket=BUCKET)
            yield world
        finally:
            aws.terminate()
            aws.wait()
            real.shutdown()


def bloom_line(medians: dict[str, dict[str, float]], size: float) -> str:
    """The times of BLOOM 176B, computed from the measured rates."""
    scale = BLOOM_BYTES / size
    packing, copying, code = (medians[way]["first_before_start"] for way in ("repackaged", "mirrored", "code only"))
    work, line, copy = packing * scale / 3600, 2 * BLOOM_BYTES / LINE_BYTES_A_SECOND / 3600, copying * scale / 3600
    weights, hours = f"{BLOOM_BYTES / 1e9:.0f} GB", f"{TUTORIAL_HOURS} h"
    return "\n".join(
        [
            f"BLOOM 176B, {weights}, {scale:.0f} times these weights (the tutorial: {hours}):",
            f"  repackaged  {packing:.1f} s x {scale:.0f} = {work:.1f} h of work",
            f"              2 x {weights} over 1 Gbit/s = {line:.1f} h: {work + line:.1f} h together",
            f"  mirrored    {copying:.1f} s x {scale:.0f} = {copy:.1f} h, none of it over the user's line",
            f"              (copied and placed at {size / copying / 1e6:.0f} MB/s by this machine's cores)",
            f"  code only   {code:.2f} s whatever the weights: {TUTORIAL_HOURS * 3600 / code:,.0f} times less",
            "              (each start of a container loads from the Hub)",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    plain: list[float] = []
    with world_of(given.gigabytes) as world:
        size = sum(file.stat().st_size for file in world.model.glob("*.safetensors"))
        print(f"weights: {size / 1e9:.2f} GB")
        answer(world, world.root / "warm", extended(world, world.root, second=True))  # the page cache has the libraries
        for number in range(given.runs):
            for way in WAYS:
                runs[way].append(measure(world, way))
                shown = ", ".join(f"{name} {value:.4g}" for name, value in runs[way][-1].items())
                print(f"run {number + 1}, {way}: {shown}", flush=True)
            plain.append(copy_and_load(world))
            print(f"run {number + 1}, plain copy and direct load: {plain[-1]:.1f} s", flush=True)
    medians = {
        way: {name: statistics.median(run[name] for run in found) for name in found[0]} for way, found in runs.items()
    }
    print("\n| way | bytes through the user's machine | uploaded | change to first answer | second endpoint |")
    print("|---|---|---|---|---|")
    for way, found in medians.items():
        print(
            f"| {way} | {(found['down'] + found['up']) / 1e6:,.4g} MB | {found['up'] / 1e6:,.4g} MB | "
            f"{found['first']:.1f} s | {found['second']:.1f} s |"
        )
    moved = {way: found["down"] + found["up"] for way, found in medians.items()}
    fewer = {way: moved["repackaged"] / moved[way] for way in ("code only", "extended", "mirrored")}
    disk = statistics.median(run["second"] / one for run, one in zip(runs["mirrored"], plain, strict=True))
    print(f"\nfewer bytes than repackaged, times: {', '.join(f'{way} {times:,.0f}' for way, times in fewer.items())}")
    print(f"mirrored, second endpoint / plain copy and direct load: {disk:.2f} (at most {DISK_SPEED})")
    print(bloom_line(medians, size))
    if given.json:
        given.json.write_text(json.dumps({"runs": runs, "plain": plain, "fewer": fewer, "disk": disk}, indent=1))
    if min(fewer.values()) < FEWER or disk > DISK_SPEED:
        sys.exit("a target was missed")


if __name__ == "__main__":
    main()
