"""The rehearsal: the real `cdk deploy` of the real app, on AWS services embedded on this machine.

Read `Rehearsal.steps` from top to bottom: it is the whole story.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extended_dlc.rehearsal import standin, tiny_models
from extended_dlc.rehearsal.cdk import ACCOUNT, REGION, Cdk, aws_environment
from extended_dlc.rehearsal.engine import Engine, find_engine
from extended_dlc.rehearsal.host_pip import host_pip
from extended_dlc.rehearsal.processes import Servers
from extended_dlc.rehearsal.report import Report, Step
from extended_dlc.rehearsal.speech import tone_wav

NAME = "extended-dlc-rehearsal"
PROMPT = "Hello, my name is"
FIRST_MODEL, OTHER_MODEL = "bigscience/bloom-560m", "bigscience/bloom-1b1"
WHISPER_MODEL = "openai/whisper-base"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an endpoint answered, and who answered."""

    text: str
    model: str
    """Name of the SageMaker Model that serves."""

    digest: str
    """The image that runs, as `DescribeEndpoint` reports it."""


class Rehearsal:
    """One rehearsal of the app in a folder; its state lives in `.rehearsal` there."""

    def __init__(self, app: Path, report: Report) -> None:
        """Rehearse the app in the folder `app`; `ValueError` where there is none or its CDK CLI is missing."""
        self.app = app.resolve()
        self.state = self.app / ".rehearsal"
        self.report = report
        self.servers = Servers(self.state)
        self._settings_file = self.state / "settings.json"
        if not (self.app / "cdk.json").is_file():
            raise ValueError(f"{self.app} holds no cdk.json: go to the folder of the app, or name it with --app")
        if not (self.app / "node_modules" / ".bin" / "cdk").exists():
            raise ValueError(f"{self.app} has no CDK CLI in node_modules: run 'make setup' or 'npm ci' there first")

    def run(self, *, keep: bool = False) -> None:
        """Run all steps and take everything down again; `StepFailed` with the reason when one fails."""
        self.down()
        try:
            self.steps(keep=keep)
        except BaseException:
            self.down()
            raise
        if not keep:
            with self.report.step("stop what was started") as step:
                step.proof = self.down()

    def down(self) -> str:
        """Stop the servers and remove the containers of a rehearsal; says what was stopped."""
        stopped = self.servers.stop()
        engine_file = self.state / "engine.json"
        removed = Engine.load(engine_file).remove_containers() if engine_file.exists() else []
        return f"stopped: {', '.join(stopped) or 'nothing'}; containers removed: {len(removed)}"

    def steps(self, *, keep: bool) -> None:
        """The story."""
        self.state.mkdir(exist_ok=True)
        shutil.rmtree(self.state / "logs", ignore_errors=True)
        (self.state / "logs").mkdir()
        self._container_engine()
        self._embedded_aws()
        self._base_image()
        self._models()
        self._hub()
        self._write_settings(FIRST_MODEL)
        self._cdk("cdk bootstrap", "bootstrap", f"aws://{ACCOUNT}/{REGION}")
        self._deploy("cdk deploy: build the image, bring up BLOOM and Whisper", FIRST_MODEL)
        first = self._bloom_answers("BLOOM generates text")
        self._whisper_answers()
        self._deploy("cdk deploy again, with another model", OTHER_MODEL)
        other = self._bloom_answers("the other model answers under the same name", unlike=first)
        self._deploy("cdk deploy once more, back to the first model", FIRST_MODEL)
        self._bloom_answers("the first model answers as before", like=first, unlike=other)
        if keep:
            self._leave_up()
        else:
            self._destroy()

    # ---- the machine's part ----

    def _container_engine(self) -> None:
        with self.report.step("find a container engine") as step:
            self.registry_port = self.servers.port("aws")
            self.engine = find_engine(
                self.state,
                registry=f"127.0.0.1:{self.registry_port}",
                say=self.report.say,
                on_download=_count(step),
            )
            self.engine.save(self.state / "engine.json")
            step.proof = self.engine.version()

    def _embedded_aws(self) -> None:
        with self.report.step("start the embedded AWS") as step:
            port = self.registry_port
            log = self.servers.start(
                "aws",
                "extended_dlc.rehearsal.embedded",
                f"--state={self.state}",
                f"--port={port}",
                f"--engine={self.state / 'engine.json'}",
                ready=f"http://127.0.0.1:{port}/v2/",
            )
            step.log = str(log)
            step.proof = f"AWS's APIs, ECR's registry and the SageMaker runtime on 127.0.0.1:{port}"

    def _base_image(self) -> None:
        with self.report.step("make the stand-in for AWS's base image") as step:
            base = standin.make_standin(self.engine, self.state, say=self.report.say, on_download=_count(step))
            self.base = base
            step.proof = f"{base}: a stand-in, made from the same PyPI packages as the DLC, which cannot be pulled here"

    def _models(self) -> None:
        with self.report.step("make tiny random models") as step:
            made = tiny_models.make_models(self.engine, self.base, self.state / "hub")
            step.proof = f"{', '.join(made)}: the real architectures, a few hundred thousand random weights"

    def _hub(self) -> None:
        with self.report.step("start the stand-in for the Hugging Face Hub") as step:
            port = self.servers.port("hub")
            log = self.servers.start(
                "hub",
                "extended_dlc.rehearsal.hub",
                f"--root={self.state / 'hub'}",
                f"--port={port}",
                ready=f"http://127.0.0.1:{port}/api/models/{FIRST_MODEL}",
            )
            step.log = str(log)
            self.hub_address = f"http://127.0.0.1:{port}"
            step.proof = f"HF_ENDPOINT={self.hub_address}"

    # ---- the CDK's part ----

    def _cdk_cli(self) -> Cdk:
        return Cdk(
            app=self.app,
            state=self.state,
            port=self.registry_port,
            engine=self.engine,
            settings=self._settings_file,
        )

    def _cdk(self, name: str, *arguments: str) -> None:
        with self.report.step(name) as step:
            log = self.state / "logs" / f"{len(self.report.steps):02}-cdk-{arguments[0]}.log"
            step.log = str(log)
            self._cdk_cli().run(*arguments, log=log, each_line=self.report.say)

    def _deploy(self, name: str, bloom: str) -> None:
        self._write_settings(bloom)
        self._cdk(name, "deploy", "--all", "--require-approval=never", "--progress=events")

    def _write_settings(self, bloom: str) -> None:
        """Settings of the app for this machine: addresses, and nothing that the app would not take elsewhere."""
        context = json.loads((self.app / "cdk.json").read_text())["context"]["extended-dlc"]
        pip = host_pip(self.state / "pip")
        hub = {"HF_ENDPOINT": self.hub_address}
        settings = {
            "name": NAME,
            "region": REGION,
            "image": {
                "transformers": context["image"]["transformers"],
                "base": self.base,
                "build": {
                    "engine": "podman" if self.engine.is_podman() else "docker",
                    "pip_config": pip.pip_config,
                    "ca_bundle": pip.ca_bundle,
                },
            },
            "endpoints": {
                "bloom": {"model": bloom, "environment": hub},
                "whisper": {"model": WHISPER_MODEL, "environment": hub},
            },
        }
        self._settings_file.write_text(json.dumps(settings, indent=2) + "\n")

    def _destroy(self) -> None:
        self._cdk("cdk destroy", "destroy", "--all", "--force")
        with self.report.step("nothing is left") as step:
            left = self._left()
            if left:
                raise RuntimeError("cdk destroy left " + ", ".join(left))
            step.proof = "no stack, endpoint, config, model, repository, role or container but the CDK's own bootstrap"

    def _left(self) -> list[str]:
        """What of the app is still there."""
        left = [f"endpoint {e['EndpointName']}" for e in self._client("sagemaker").list_endpoints()["Endpoints"]]
        left += [
            f"config {config['EndpointConfigName']}"
            for config in self._client("sagemaker").list_endpoint_configs()["EndpointConfigs"]
        ]
        left += [f"model {model['ModelName']}" for model in self._client("sagemaker").list_models()["Models"]]
        repositories = self._client("ecr").describe_repositories()["repositories"]
        left += [
            f"repository {r['repositoryName']}" for r in repositories if not r["repositoryName"].startswith("cdk-")
        ]
        roles = self._client("iam").list_roles()["Roles"]
        left += [f"role {role['RoleName']}" for role in roles if NAME in role["RoleName"]]
        active = [
            "CREATE_COMPLETE",
            "UPDATE_COMPLETE",
            "ROLLBACK_COMPLETE",
            "DELETE_FAILED",
            "UPDATE_ROLLBACK_COMPLETE",
        ]
        stacks = self._client("cloudformation").list_stacks(StackStatusFilter=active)["StackSummaries"]
        left += [f"stack {stack['StackName']}" for stack in stacks if stack["StackName"] != "CDKToolkit"]
        return left + [f"container {container}" for container in self.engine.containers()]

    # ---- the client's part ----

    def _client(self, service: str) -> Any:
        import boto3
        from botocore.config import Config

        settings = aws_environment(self.registry_port)
        return boto3.client(
            service,
            endpoint_url=settings["AWS_ENDPOINT_URL"],
            region_name=REGION,
            aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"total_max_attempts": 1}, read_timeout=70),
        )

    def _invoke(self, endpoint: str, body: bytes, content_type: str) -> Any:
        runtime = self._client("sagemaker-runtime")
        answer = runtime.invoke_endpoint(EndpointName=f"{NAME}-{endpoint}", Body=body, ContentType=content_type)
        return json.loads(answer["Body"].read())

    def _bloom_answers(self, name: str, *, like: Answer | None = None, unlike: Answer | None = None) -> Answer:
        """Ask BLOOM; compare its answer and the Model behind it with those of an earlier deployment."""
        with self.report.step(name) as step:
            request = {"inputs": PROMPT, "parameters": {"max_new_tokens": 12, "do_sample": False}}
            reply = self._invoke("bloom", json.dumps(request).encode(), "application/json")
            answer = self._who_answered("bloom", reply[0]["generated_text"])
            step.proof = _show(request, answer)
            if not answer.text.startswith(PROMPT) or answer.text == PROMPT:
                raise RuntimeError(f"no text was generated: {reply}")
            if like and answer.text != like.text:
                raise RuntimeError(f"the same model answered {answer.text!r} after {like.text!r}")
            if unlike and (answer.text == unlike.text or answer.model == unlike.model):
                raise RuntimeError(f"the change did not reach the endpoint: {answer} after {unlike}")
            return answer

    def _whisper_answers(self) -> None:
        with self.report.step("Whisper transcribes a WAV file") as step:
            wav = tone_wav(seconds=2)
            (self.state / "speech.wav").write_bytes(wav)
            reply = self._invoke("whisper", wav, "audio/wav")
            answer = self._who_answered("whisper", reply["text"])
            step.proof = _show("speech.wav, 2 s", answer)
            if not answer.text.strip():
                raise RuntimeError(f"no text was transcribed: {reply}")

    def _who_answered(self, endpoint: str, text: str) -> Answer:
        """The Model and the image behind an endpoint, the image's digest compared with the registry's."""
        sagemaker = self._client("sagemaker")
        described = sagemaker.describe_endpoint(EndpointName=f"{NAME}-{endpoint}")
        (deployed,) = described["ProductionVariants"][0]["DeployedImages"]
        config = sagemaker.describe_endpoint_config(EndpointConfigName=described["EndpointConfigName"])
        digest = deployed["ResolvedImage"].rpartition("@")[2]
        repository, _, tag = deployed["SpecifiedImage"].partition("/")[2].partition(":")
        (in_registry,) = self._client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])[
            "imageDetails"
        ]
        if in_registry["imageDigest"] != digest:
            raise RuntimeError(f"{endpoint} runs {digest}, but its tag stands for {in_registry['imageDigest']}")
        return Answer(text=text, model=config["ProductionVariants"][0]["ModelName"], digest=digest)

    def _leave_up(self) -> None:
        environment = {
            **aws_environment(self.registry_port),
            "CDK_DOCKER": self.engine.program,
            **self.engine.environment,
        }
        self.report.say("everything is left up; to use it, paste:")
        for key, value in environment.items():
            self.report.say(f"export {key}='{value}'")
        self.report.say("and to end it: extended-dlc rehearse --down")


def _count(step: Step) -> Callable[[str, float], None]:
    """Adds the seconds of downloads to a step."""

    def on_download(what: str, seconds: float) -> None:
        step.download_seconds += seconds

    return on_download


def _show(request: object, answer: Answer) -> str:
    return f"{request}\n→ {answer.text!r}\nfrom {answer.model}, image {answer.digest[:19]}…"
