"""A text classifier learns labels, with Trainer.

On a laptop: python train.py --model distilbert/distilbert-base-uncased --max_steps 20
On SageMaker the arguments are the job's hyperparameters, and the folders come by SM_CHANNEL_* and SM_MODEL_DIR.
"""

import argparse
import json
import os
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

HERE = Path(__file__).parent
OUTPUT = os.environ.get("SM_MODEL_DIR", f"output/{HERE.name}/model")
CHECKPOINTS = Path(OUTPUT).with_name("checkpoints")  # /opt/ml/checkpoints beside /opt/ml/model


def arguments() -> argparse.Namespace:
    """The command line; its defaults are the folders of SageMaker where the script runs there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    given = os.environ.get("SM_CHANNEL_MODEL") or os.environ.get("HF_MODEL_ID") or "distilbert/distilbert-base-uncased"
    parser.add_argument("--model", default=given, help="Hub id or folder")
    parser.add_argument("--revision", default=os.environ.get("HF_MODEL_REVISION"), help="of the model on the Hub")
    train = os.environ.get("SM_CHANNEL_TRAIN", str(HERE / "data" / "train"))
    parser.add_argument("--train", default=train, help="*.jsonl: text, label")
    validation = os.environ.get("SM_CHANNEL_VALIDATION", str(HERE / "data" / "validation"))
    parser.add_argument("--validation", default=validation, help="*.jsonl: text, label")
    parser.add_argument("--output", default=OUTPUT)
    parser.add_argument("--metrics", default=os.environ.get("SM_OUTPUT_DATA_DIR", f"output/{HERE.name}"))
    parser.add_argument("--checkpoints", default=str(CHECKPOINTS))
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max_steps", type=int, default=-1, help="ends the training earlier")
    parser.add_argument("--save_steps", type=int, default=10, help="between two checkpoints")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    return parser.parse_args()


def read(folder: str) -> Dataset:
    """The rows of a channel."""
    return load_dataset("json", data_files=sorted(map(str, Path(folder).rglob("*.jsonl"))), split="train")


def main() -> None:
    """Train, save, and write what was measured."""
    args = arguments()
    train, validation = read(args.train), read(args.validation)
    labels = sorted(set(train["label"]))
    tokenizer = AutoTokenizer.from_pretrained(args.model, revision=args.revision)
    model = AutoModelForSequenceClassification.from_pretrained(
        args.model,
        revision=args.revision,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        ignore_mismatched_sizes=True,
    )

    def prepare(rows: dict[str, list[str]]) -> dict[str, list[object]]:
        return {**tokenizer(rows["text"], truncation=True), "label": [labels.index(each) for each in rows["label"]]}

    trainer = Trainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=train.map(prepare, batched=True, remove_columns=train.column_names),
        eval_dataset=validation.map(prepare, batched=True, remove_columns=validation.column_names),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
        args=TrainingArguments(
            output_dir=args.checkpoints,
            num_train_epochs=args.epochs,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
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


def accuracy(predicted: EvalPrediction) -> dict[str, float]:
    """How many are right."""
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def last_checkpoint(folder: str) -> str | None:
    """The newest one that was written to its end: a container may be stopped while it saves."""
    complete = [each.parent for each in Path(folder).glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda each: int(each.name.split("-")[1]))) if complete else None


if __name__ == "__main__":
    main()
