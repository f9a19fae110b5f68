"""A causal language model learns new sentences by LoRA, with trl's SFTTrainer.

On a laptop: python train.py --model HuggingFaceTB/SmolLM2-135M --max_steps 20
On SageMaker the arguments are the job's hyperparameters, and the folders come by SM_CHANNEL_* and SM_MODEL_DIR.
"""

import argparse
import json
import os
from pathlib import Path

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

HERE = Path(__file__).parent
OUTPUT = os.environ.get("SM_MODEL_DIR", f"output/{HERE.name}/model")
CHECKPOINTS = Path(OUTPUT).with_name("checkpoints")  # /opt/ml/checkpoints beside /opt/ml/model


def arguments() -> argparse.Namespace:
    """The command line; its defaults are the folders of SageMaker where the script runs there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    given = os.environ.get("SM_CHANNEL_MODEL") or os.environ.get("HF_MODEL_ID") or "HuggingFaceTB/SmolLM2-135M"
    parser.add_argument("--model", default=given, help="Hub id or folder")
    parser.add_argument("--revision", default=os.environ.get("HF_MODEL_REVISION"), help="of the model on the Hub")
    parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN", str(HERE / "data")), help="*.jsonl: text")
    parser.add_argument("--output", default=OUTPUT)
    parser.add_argument("--metrics", default=os.environ.get("SM_OUTPUT_DATA_DIR", f"output/{HERE.name}"))
    parser.add_argument("--checkpoints", default=str(CHECKPOINTS))
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max_steps", type=int, default=-1, help="ends the training earlier")
    parser.add_argument("--save_steps", type=int, default=10, help="between two checkpoints")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--rank", type=int, default=16)
    return parser.parse_args()


def main() -> None:
    """Train, save, and write what was measured."""
    args = arguments()
    tokenizer = AutoTokenizer.from_pretrained(args.model, revision=args.revision)
    model = AutoModelForCausalLM.from_pretrained(args.model, revision=args.revision)
    data = load_dataset("json", data_files=sorted(map(str, Path(args.train).rglob("*.jsonl"))), split="train")
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=data,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear"
        ),
        args=SFTConfig(
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
    result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(args.output)
    Path(args.metrics).mkdir(parents=True, exist_ok=True)
    (Path(args.metrics) / "metrics.json").write_text(json.dumps({"train_loss": result.training_loss}))


def last_checkpoint(folder: str) -> str | None:
    """The newest one that was written to its end: a container may be stopped while it saves."""
    complete = [each.parent for each in Path(folder).glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda each: int(each.name.split("-")[1]))) if complete else None


if __name__ == "__main__":
    main()
