"""The main scenario: `cdk deploy` of BLOOM and Whisper, another model, the first again, and `cdk destroy`."""

from __future__ import annotations

from typing import Any

from extended_dlc.rehearsal.base_image.stand_in import DLC_4_51_3
from extended_dlc.rehearsal.client import Answer
from extended_dlc.rehearsal.speech import tone_wav
from extended_dlc.rehearsal.stage import Stage
from extended_dlc.rehearsal.tiny_models import BLOOM, OTHER_BLOOM, WHISPER

REQUEST = {"inputs": "Hello, my name is", "parameters": {"max_new_tokens": 12, "do_sample": False}}


def play(stage: Stage, *, keep: bool) -> None:
    stage.container_engine()
    stage.embedded_aws()
    base = stage.base_image(DLC_4_51_3)
    stage.models()
    stage.hub()
    image = stage.extended(base, stage.app_settings["image"]["transformers"])
    stage.bootstrap(image)

    stage.deploy("cdk deploy: build the image, bring up BLOOM and Whisper", image=image, endpoints=_both(stage, BLOOM))
    first = _bloom_answers(stage, "BLOOM generates text")
    _whisper_answers(stage)

    stage.deploy("cdk deploy again, with another model", image=image, endpoints=_both(stage, OTHER_BLOOM))
    other = _bloom_answers(stage, "the other model answers under the same name", unlike=first)

    stage.deploy("cdk deploy once more, back to the first model", image=image, endpoints=_both(stage, BLOOM))
    _bloom_answers(stage, "the first model answers as before", like=first, unlike=other)

    if keep:
        stage.leave_up()
    else:
        stage.destroy()


def _both(stage: Stage, bloom: str) -> dict[str, Any]:
    """Two endpoints on one image."""
    return {"bloom": stage.endpoint(bloom), "whisper": stage.endpoint(WHISPER)}


def _bloom_answers(stage: Stage, name: str, *, like: Answer | None = None, unlike: Answer | None = None) -> Answer:
    """Invoke BLOOM, and compare its text and its Model with those of an earlier deployment."""
    with stage.report.step(name) as step:
        answer = stage.client.generate("bloom", REQUEST)
        step.proof = answer.shown(REQUEST)
        if like and answer.text != like.text:
            raise RuntimeError(f"the same model answered {answer.text!r} after {like.text!r}")
        if unlike and (answer.text == unlike.text or answer.model == unlike.model):
            raise RuntimeError(f"the change did not reach the endpoint: {answer} after {unlike}")
        return answer


def _whisper_answers(stage: Stage) -> None:
    with stage.report.step("Whisper transcribes a WAV file") as step:
        wav = tone_wav(seconds=2)
        (stage.state / "speech.wav").write_bytes(wav)
        reply = stage.client.invoke("whisper", wav, "audio/wav")
        answer = stage.client.who_answered("whisper", reply["text"])
        step.proof = answer.shown("speech.wav, 2 s")
        if not answer.text.strip():
            raise RuntimeError(f"no text was transcribed: {reply}")
