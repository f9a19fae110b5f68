"""What a trained causal language model makes of sentences that it has not seen: `eval_loss` in metrics.json.

On a laptop: python evaluate.py, where train.py ran
"""

import argparse
import json
import math
import os
from pathlib import Path

import torch
from datasets import load_dataset
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
MODEL = os.environ.get("SM_CHANNEL_MODEL", f"output/{HERE.name}/model")


def main() -> None:
    """Measure, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="weights, or an adapter")
    data = os.environ.get("SM_CHANNEL_VALIDATION", str(HERE / "data"))
    parser.add_argument("--validation", default=data, help="*.jsonl: text")
    parser.add_argument("--metrics", default=os.environ.get("SM_OUTPUT_DATA_DIR", f"output/{HERE.name}"))
    args = parser.parse_args()

    is_adapter = (Path(args.model) / "adapter_config.json").is_file()
    loader = AutoPeftModelForCausalLM if is_adapter else AutoModelForCausalLM
    model = loader.from_pretrained(args.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    texts = load_dataset("json", data_files=sorted(map(str, Path(args.validation).rglob("*.jsonl"))), split="train")
    losses = []
    with torch.no_grad():
        for text in texts["text"]:
            tokens = tokenizer(text, return_tensors="pt")["input_ids"]
            losses.append(model(input_ids=tokens, labels=tokens).loss.item())
    loss = sum(losses) / len(losses)
    metrics = {"eval_loss": loss, "perplexity": math.exp(min(loss, 100))}
    Path(args.metrics).mkdir(parents=True, exist_ok=True)
    (Path(args.metrics) / "metrics.json").write_text(json.dumps(metrics))
    print(metrics)


if __name__ == "__main__":
    main()
