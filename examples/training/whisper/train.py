"""Whisper learns transcripts, with Seq2SeqTrainer.

On a laptop: python train.py --model openai/whisper-tiny --max_steps 20
On SageMaker the arguments are the job's hyperparameters, and the folders come by SM_CHANNEL_* and SM_MODEL_DIR.

A channel holds WAV or FLAC files and a metadata.jsonl: {"file_name": "one.wav", "text": "one"}.
"""

import argparse
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import soundfile
import torch
from torch.utils.data import Dataset
from transformers import (
    EvalPrediction,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

RATE = 16_000
HERE = Path(__file__).parent
OUTPUT = os.environ.get("SM_MODEL_DIR", f"output/{HERE.name}/model")
CHECKPOINTS = Path(OUTPUT).with_name("checkpoints")  # /opt/ml/checkpoints beside /opt/ml/model


def arguments() -> argparse.Namespace:
    """The command line; its defaults are the folders of SageMaker where the script runs there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    given = os.environ.get("SM_CHANNEL_MODEL") or os.environ.get("HF_MODEL_ID") or "openai/whisper-tiny"
    parser.add_argument("--model", default=given, help="Hub id or folder")
    parser.add_argument("--revision", default=os.environ.get("HF_MODEL_REVISION"), help="of the model on the Hub")
    parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN"), help="a folder; without it, four tones")
    parser.add_argument("--validation", default=os.environ.get("SM_CHANNEL_VALIDATION"), help="without it, as --train")
    parser.add_argument("--language", default="en")
    parser.add_argument("--output", default=OUTPUT)
    parser.add_argument("--metrics", default=os.environ.get("SM_OUTPUT_DATA_DIR", f"output/{HERE.name}"))
    parser.add_argument("--checkpoints", default=str(CHECKPOINTS))
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max_steps", type=int, default=-1, help="ends the training earlier")
    parser.add_argument("--save_steps", type=int, default=10, help="between two checkpoints")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=1e-5)
    parser.add_argument("--generation_max_length", type=int, default=225, help="tokens of a transcript")
    return parser.parse_args()


def main() -> None:
    """Train, save, and write what was measured."""
    args = arguments()
    processor = WhisperProcessor.from_pretrained(
        args.model, revision=args.revision, language=args.language, task="transcribe"
    )
    model = WhisperForConditionalGeneration.from_pretrained(args.model, revision=args.revision)
    model.generation_config.language, model.generation_config.task = args.language, "transcribe"

    def word_error_rate(predicted: EvalPrediction) -> dict[str, float]:
        pad = processor.tokenizer.pad_token_id
        said, heard = (
            processor.batch_decode(np.where(tokens < 0, pad, tokens), skip_special_tokens=True)
            for tokens in (predicted.label_ids, predicted.predictions)
        )
        return {"wer": jiwer.wer(said, heard)}

    trainer = Seq2SeqTrainer(
        model=model,
        processing_class=processor,
        train_dataset=Recordings(args.train, processor),
        eval_dataset=Recordings(args.validation or args.train, processor),
        data_collator=Collator(processor),
        compute_metrics=word_error_rate,
        args=Seq2SeqTrainingArguments(
            output_dir=args.checkpoints,
            num_train_epochs=args.epochs,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            fp16=torch.cuda.is_available(),
            predict_with_generate=True,
            generation_max_length=args.generation_max_length,
            remove_unused_columns=False,
            use_cpu=not torch.accelerator.is_available(),  # several hosts without GPUs are one training, too
            logging_steps=1,
            save_steps=args.save_steps,
            save_total_limit=2,
            report_to=[],
        ),
    )
    if checkpoint := last_checkpoint(args.checkpoints):
        print(f"goes on from {checkpoint}")
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(args.output)
    metrics = {key: value for key, value in trainer.evaluate().items() if isinstance(value, float)}
    Path(args.metrics).mkdir(parents=True, exist_ok=True)
    (Path(args.metrics) / "metrics.json").write_text(json.dumps(metrics))


class Recordings(Dataset):
    """Features and labels of a channel, made when they are asked for; of four tones with their names without one."""

    def __init__(self, folder: str | None, processor: WhisperProcessor) -> None:
        self.processor = processor
        if folder is None:
            time = np.arange(RATE // 2) / RATE
            tones = {"low": 220, "middle": 440, "high": 880, "shrill": 1760}
            self.rows = [(np.sin(2 * math.pi * pitch * time), text) for text, pitch in tones.items()]
        else:
            lines = (Path(folder) / "metadata.jsonl").read_text().splitlines()
            self.rows = [(Path(folder) / row["file_name"], row["text"]) for row in map(json.loads, lines)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        sound, text = self.rows[number]
        if isinstance(sound, Path):
            file = sound
            sound, rate = soundfile.read(file)
            if rate != RATE:
                raise SystemExit(f"{file} has {rate} samples a second: convert it to {RATE}")
        features = self.processor.feature_extractor(sound, sampling_rate=RATE).input_features[0]
        return {"input_features": features, "labels": self.processor.tokenizer(text).input_ids}


@dataclass
class Collator:
    """Pads labels with what the loss passes over."""

    processor: WhisperProcessor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """One batch."""
        batch = self.processor.feature_extractor.pad(
            [{"input_features": row["input_features"]} for row in rows], return_tensors="pt"
        )
        labels = self.processor.tokenizer.pad([{"input_ids": row["labels"]} for row in rows], return_tensors="pt")
        batch["labels"] = labels["input_ids"].masked_fill(labels["attention_mask"].ne(1), -100)
        return dict(batch)


def last_checkpoint(folder: str) -> str | None:
    """The newest one that was written to its end: a container may be stopped while it saves."""
    complete = [each.parent for each in Path(folder).glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda each: int(each.name.split("-")[1]))) if complete else None


if __name__ == "__main__":
    main()
