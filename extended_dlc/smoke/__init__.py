"""The smoke test: deploys the app to a real AWS account, tests each endpoint once, and always destroys it.

`SmokeTest.run` has all steps in order. AWS's credentials and region come from the environment, as for the AWS and CDK
command lines.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from extended_dlc.app.read import Raw, known_models
from extended_dlc.decisions.image import ImageDecision
from extended_dlc.doctor import CHECKS, Problem, Target, Unknown, examine
from extended_dlc.facts.instances import find_instance
from extended_dlc.images.registry_login import engine_program
from extended_dlc.rehearsal.cdk import run_cdk, without_settings
from extended_dlc.rehearsal.report import Report, StepFailed
from extended_dlc.rehearsal.speech import tone_wav
from extended_dlc.smoke.budget import INSTANCES, Budget
from extended_dlc.smoke.claims import Seen, judge
from extended_dlc.smoke.confirmation import Circumstances, write_confirmation
from extended_dlc.smoke.interrupts import Interrupts
from extended_dlc.smoke.remains import Remains

__all__ = ["NAME", "Budget", "SmokeTest", "SomethingIsLeft"]

NAME = "extended-dlc-smoke"
"""Name of the stack, and prefix of the endpoints' names."""

PROMPT = "Hello, my name is"
_ENDPOINTS = {"bloom": {"model": "bigscience/bloom-560m"}, "whisper": {"model": "openai/whisper-base"}}
_METRIC_SECONDS = 180
"""How long the report waits for an endpoint's first metrics, which are published each minute."""
_OTHER_CHECKS = ("python", "cdk-on-path")  # the test uses its own Python and the CLI in node_modules


class SomethingIsLeft(Exception):
    """The account still has resources of the test; the message names them and how to delete them."""


class SmokeTest:
    """One smoke test of the app in a folder."""

    def __init__(
        self,
        app: Path,
        region: str,
        *,
        budget: Budget,
        report: Report,
        settings: Mapping[str, Any],
        confirmation: Path | None = None,
    ) -> None:
        """Test the app in `app` with the image, and the endpoints `bloom` and `whisper`, of its `settings`.

        :param confirmation: File for the report on which of the project's claims the test confirmed. Default: none.
        """
        self.app = app.resolve()
        self.region = region
        self.budget = budget
        self.report = report
        self.state = self.app / ".cache" / "smoke"
        self._cli = self.app / "node_modules" / ".bin" / "cdk"
        self._settings = _deployed(settings, region, budget.instance_type)
        self._interrupts = Interrupts(say=report.say)
        self._remains = Remains(NAME, region)
        self._confirmation = confirmation
        self._found: dict[str, str] = {}
        """The messages of doctor's checks, by the checks' names."""
        self._claims: dict[str, tuple[bool, str]] = {}
        self.seconds = 0.0
        """Upper bound of the time that instances ran."""
        if not (self.app / "cdk.json").is_file():
            raise ValueError(f"{self.app} holds no cdk.json: go to the folder of the app, or name it with --app")
        if not self._cli.exists():
            raise ValueError(f"{self.app} has no CDK CLI in node_modules: run 'make setup' or 'npm ci' there first")

    @property
    def _file(self) -> Path:
        """The file with the deployed settings."""
        return self.state / "settings.json"

    def account(self) -> str:
        return str(self._remains.client("sts").get_caller_identity()["Account"])

    def run(self) -> None:
        """Deploy, send the requests, and destroy in any case, before `StepFailed` or KeyboardInterrupt is raised."""
        self.state.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._settings, indent=2) + "\n")
        account = self.account() if self._confirmation else ""
        with self._interrupts.caught():
            self._nothing_stands_in_the_way()
            self._no_earlier_run()
            begun, day = time.monotonic(), datetime.now(timezone.utc)
            try:
                try:
                    with self._interrupts.after(self.budget.minutes * 60):
                        self._cdk("cdk deploy", "deploy", "--all", "--require-approval=never", "--progress=events")
                        self._bloom_answers()
                        self._whisper_answers()
                        if self._confirmation:
                            self._look(day, left=self.budget.minutes * 60 - (time.monotonic() - begun))
                finally:
                    self._interrupts.hold()
            finally:  # a second `finally`, because a signal may arrive before `hold` in the first one
                try:
                    self.destroy()
                finally:
                    self.seconds = time.monotonic() - begun
                    if self._confirmation:
                        self._confirm(self._confirmation, account, day)

    def destroy(self) -> None:
        """Destroy the deployment of a test and check that it is gone; raises `SomethingIsLeft` otherwise."""
        self.state.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._settings, indent=2) + "\n")
        passed = bool(self.report.steps) and all(step.ok for step in self.report.steps)
        try:
            self._remains.remember()
            if self._remains.stack is not None:
                self._delete_stack()
            with self.report.step("nothing is left") as step:
                step.proof = self._remains.prove_gone(keep_logs=not passed)
        except Exception as error:
            raise SomethingIsLeft(
                f"{error}\nsee what there is, and delete it by hand, because it costs until then:\n"
                f"  aws cloudformation delete-stack --region {self.region} --stack-name {NAME}\n"
                f"  aws sagemaker list-endpoints --region {self.region} --name-contains {NAME}"
            ) from error

    def summary(self) -> dict[str, Any]:
        """The content of the JSON report besides the steps."""
        cost = self.budget.cost(self.seconds)
        return {
            "region": self.region,
            "instance_type": self.budget.instance_type,
            "instances": INSTANCES,
            "hourly_price_usd": self.budget.hourly_price,
            "max_minutes": round(self.budget.minutes, 2),
            "instance_seconds_at_most": round(INSTANCES * self.seconds, 1),
            "estimated_cost_usd": None if cost is None else round(cost, 4),
        }

    # Before anything costs.

    def _nothing_stands_in_the_way(self) -> None:
        with self.report.step("extended-dlc doctor") as step:
            target = Target(folder=self.app, settings=self._settings, file=self._file, engine=engine_program())
            found = list(examine(target, [check for check in CHECKS if check.name not in _OTHER_CHECKS]))
            self._found = {name: finding.message for name, finding in found}
            problems = [
                f"{name}: {finding.message}\n  → {finding.remedy}"
                for name, finding in found
                if isinstance(finding, Problem)
            ]
            if problems:
                raise RuntimeError("\n".join(problems))
            unknown = [f"unknown: {name}: {finding.message}" for name, finding in found if isinstance(finding, Unknown)]
            step.proof = "\n".join(["no problem", *unknown])

    def _no_earlier_run(self) -> None:
        with self.report.step("no earlier test is there") as step:
            if self._remains.describe() is not None:
                raise RuntimeError(
                    f"there is a stack {NAME} in {self.region}, of another test that runs or was killed: "
                    f"wait for it, or remove it with: extended-dlc smoke {self.region} --destroy"
                )
            step.proof = f"no stack {NAME} in {self.region}"

    # The requests.

    def _invoke(self, endpoint: str, body: bytes, content_type: str) -> Any:
        runtime = self._remains.client("sagemaker-runtime", read_timeout=70)
        answer = runtime.invoke_endpoint(EndpointName=f"{NAME}-{endpoint}", Body=body, ContentType=content_type)
        return json.loads(answer["Body"].read())

    def _bloom_answers(self) -> None:
        with self.report.step("BLOOM generates text") as step:
            request = {"inputs": PROMPT, "parameters": {"max_new_tokens": 12, "do_sample": False}}
            reply = self._invoke("bloom", json.dumps(request).encode(), "application/json")
            text = reply[0]["generated_text"]
            if not text.startswith(PROMPT) or text == PROMPT:
                raise RuntimeError(f"no text was generated: {reply}")
            step.proof = f"{request}\n→ {text!r}"

    def _whisper_answers(self) -> None:
        with self.report.step("Whisper transcribes a WAV file") as step:
            reply = self._invoke("whisper", tone_wav(seconds=2), "audio/wav")
            # The tone has no speech in it, so an empty text is correct.
            if not isinstance(reply, dict) or not isinstance(reply.get("text"), str):
                raise RuntimeError(f"the answer is no transcription: {reply}")
            step.proof = f"a tone of 2 s\n→ {reply['text']!r}"

    # What it confirms.

    @property
    def _image(self) -> ImageDecision:
        from extended_dlc.app.settings import read

        known = known_models(self._file, self.app)
        return read(Raw(origin="the smoke test's settings", content=self._settings), looked_up=known).decision.image

    def _look(self, begun: datetime, *, left: float) -> None:
        with self.report.step("what is confirmed") as step:
            built = self._image.kind == "extended"
            seen = Seen(
                client=self._remains.client,
                stack=NAME,
                endpoints=tuple(f"{NAME}-{key}" for key in _ENDPOINTS),
                instance_type=self.budget.instance_type,
                gpu=find_instance(self.budget.instance_type).gpus > 0,
                base=self._image.base if built else None,
                begun=begun,
                docker=self._found.get("engine", "").startswith("Docker Engine"),
                until=time.monotonic() + min(_METRIC_SECONDS, left - 60),
            )
            self._claims = judge(seen)
            step.proof = "\n".join(
                f"{name}: {'confirmed' if done else 'open'}: {why}" for name, (done, why) in self._claims.items()
            )

    def _confirm(self, file: Path, account: str, day: datetime) -> None:
        try:
            cli = json.loads((self.app / "node_modules" / "aws-cdk" / "package.json").read_text("utf-8"))["version"]
        except (OSError, ValueError, KeyError):
            cli = "not known"
        seen = Circumstances(
            account=account,
            date=day.date().isoformat(),
            region=self.region,
            instance_type=self.budget.instance_type,
            base=self._image.base,
            transformers=self._image.transformers,
            engine=self._found.get("engine", "not known"),
            builder=self._found.get("buildkit", "not known"),
            cdk=cli,
            passed=all(step.ok for step in self.report.steps),
        )
        try:
            write_confirmation(file, seen, self._claims or judge(None))
        except OSError as error:  # must not replace SomethingIsLeft
            self.report.say(f"'--report' ({file}) cannot be written: {error}")
            return
        self.report.say(f"what it confirmed, and what not, is in {file}, without the account's id")

    # The CDK and CloudFormation.

    def _cdk(self, name: str, *arguments: str) -> None:
        with self.report.step(name) as step:
            log = self.state / f"cdk-{arguments[0]}.log"
            step.log = str(log)
            run_cdk([str(self._cli), *arguments], self.app, self._environment(), log, self.report.detail)

    def _environment(self) -> dict[str, str]:
        """The caller's environment with the test's settings, and without variables that override them."""
        given = without_settings(os.environ)
        return {
            **given,
            "EXTENDED_DLC_SETTINGS": str(self._file),
            "CDK_OUTPUT": str(self.state / "cdk.out"),
            "CDK_DISABLE_VERSION_CHECK": "1",
            "NODE_NO_WARNINGS": "1",
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
            # `python3 app.py` must run this interpreter.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def _delete_stack(self) -> None:
        """Delete the stack with the CDK CLI; if that fails, as during a deployment, with CloudFormation's API."""
        if not self._remains.being_created:
            with suppress(StepFailed):  # the report has the error
                self._cdk("cdk destroy", "destroy", "--all", "--force")
        for _ in range(3):
            if self._remains.gone():
                return
            with suppress(StepFailed), self.report.step("delete the stack by CloudFormation") as step:
                self._remains.delete(minutes=90)
                step.proof = "deleted"


def _deployed(settings: Mapping[str, Any], region: str, instance_type: str) -> dict[str, Any]:
    """The settings to deploy: the image of the given ones, and BLOOM and Whisper on one instance each."""
    given = settings.get("endpoints")
    given = given if isinstance(given, Mapping) else {}
    return {
        "name": NAME,
        "region": region,
        "image": settings.get("image") or {},
        "endpoints": {
            key: {**default, **(given.get(key) or {}), "hosting": {"instance_type": instance_type}}
            for key, default in _ENDPOINTS.items()
        },
    }
