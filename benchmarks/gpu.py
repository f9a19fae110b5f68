"""What our scheduler and batches do on a GPU, in at most eight minutes and one JSON file.

    python benchmarks/gpu.py --json FILE [--size full|smallest] [--device cuda|cpu]

Needs torch, transformers and this checkout, and no network: models have random weights. The in-image server's own
scheduler and batching run in this process, without HTTP. Sections: whether texts that share steps are those of the
model alone; 1, 16 and 64 closed loops of clients, beside `generate` on one padded batch and transformers' own
continuous batching (what `transformers serve` runs); out of memory; BERT and Whisper. A section that fails says why in
the file, and the others run. `--size smallest` is the same on a CPU in seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
import traceback
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent.parent / "docker" / "inference"))
from extended_dlc_server.writing.choosing import plan_of
from extended_dlc_server.writing.comparing import same, tolerance_of
from extended_dlc_server.writing.generating import Generation
from extended_dlc_server.writing.scheduler import Scheduler
from extended_dlc_server.writing.texts import Writing

VOCABULARY = 2000
END = 1

SIZES: Mapping[str, Mapping[str, Any]] = {
    # a Llama of 1.1 thousand million weights, as many as the 1 B models of the Hub
    "full": {
        "llama": {
            **{"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 17, "num_attention_heads": 32},
            **{"num_key_value_heads": 8},
        },
        "bert": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
        "whisper": {
            **{"d_model": 768, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 12},
            **{"decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072},
        },
        "clients": (1, 16, 64), "seconds": 12.0, "prompt": 64, "tokens": 64,
    },
    "smallest": {
        "llama": {
            **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"num_key_value_heads": 2},
        },
        "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
        "whisper": {
            **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4},
            **{"decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
        },
        "clients": (1, 4), "seconds": 0.5, "prompt": 12, "tokens": 8,
    },
}  # fmt: skip


class Bench:
    """The device, and the measurements of a text model on it."""

    def __init__(self, size: str, device: str) -> None:
        """The model is made at its first use."""
        self.sizes, self.device = SIZES[size], torch.device(device)
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self._llama: Any = None

    @property
    def llama(self) -> Any:
        """The text model."""
        if self._llama is None:
            torch.manual_seed(0)
            config = transformers.LlamaConfig(
                vocab_size=VOCABULARY, max_position_embeddings=2048, eos_token_id=END, pad_token_id=END, bos_token_id=2,
                **self.sizes["llama"],
            )  # fmt: skip
            self._llama = transformers.LlamaForCausalLM(config).to(self.device, self.dtype).eval()
        return self._llama

    def wait(self) -> None:
        """Wait until the device has finished all queued work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def rate(self, items: int, work: Callable[[], object]) -> float:
        """The rate in items per second, after one run that warms up."""
        work()
        self.wait()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < self.sizes["seconds"] / 3:
            work()
            count += items
        self.wait()
        return round(count / (time.perf_counter() - start), 2)

    def scheduler(self, most: int, memory: int) -> Scheduler:
        """Our scheduler, after it has proved that it can run the model."""
        pipeline = types.SimpleNamespace(model=self.llama, tokenizer=Tokenizer())
        made = Scheduler(pipeline, most=most, memory=lambda: memory, longest=2000)
        made.prove(list(range(2, 20)))
        return made

    def asked(self, chance: random.Random, tokens: int, **arguments: Any) -> Generation:
        """A request for so many tokens, greedy unless `arguments` say otherwise."""
        arguments = arguments or {"do_sample": False}
        length = chance.randint(self.sizes["prompt"] // 2, self.sizes["prompt"])
        prompt = [chance.randrange(3, VOCABULARY) for _ in range(length)]
        plan = plan_of(self.llama.generation_config, arguments)
        return Generation(tokens=prompt, arguments=arguments, plan=plan, most=tokens, ends=frozenset())

    def alone(self, asked: Generation) -> list[int]:
        """The tokens that transformers' `generate` writes for a request alone, greedily."""
        with torch.inference_mode():
            made = self.llama.generate(
                input_ids=torch.tensor([asked.tokens], device=self.device), max_new_tokens=asked.most, do_sample=False,
                attention_mask=torch.ones(1, len(asked.tokens or ()), dtype=torch.long, device=self.device),
                eos_token_id=VOCABULARY + 1, pad_token_id=END,
            )  # fmt: skip
        tokens: list[int] = made[0, len(asked.tokens or ()) :].tolist()
        return tokens

    # the sections

    def correct(self) -> dict[str, Any]:
        """Texts of many lengths that join and leave, beside the model alone; ties of the precision are told apart."""
        chance, steps = random.Random(1), self.scheduler(16, 2 * 10**9)
        asked = [self.asked(chance, chance.randint(2, self.sizes["tokens"])) for _ in range(24)]
        made = run(steps, asked)
        equal = ties = different = 0
        for one, tokens in zip(asked, made, strict=True):
            wanted = self.alone(one)
            if tokens == wanted:
                equal += 1
            elif self._is_tie(one, wanted, tokens):
                ties += 1
            else:
                different += 1
        if different:
            raise AssertionError(f"{different} of {len(asked)} texts differ from the model alone")
        return {"equal": equal, "ties": ties, "different": different}

    def _is_tie(self, asked: Generation, one: list[int], other: list[int]) -> bool:
        """Whether the first tokens that differ were about as likely, within what the precision rounds."""
        position = next(number for number, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
        tokens = [*(asked.tokens or ()), *one[:position]]
        with torch.inference_mode():
            scores = self.llama(torch.tensor([tokens], device=self.device)).logits[0, -1].float()
        spread = float(scores.std())
        return (
            abs(float(scores[one[position]] - scores[other[position]]))
            <= tolerance_of(self.llama) * max(1.0, spread) * 4
        )

    def clients(self) -> dict[str, Any]:
        """Closed loops: tokens a second, and seconds to the first token, of texts of 8 to so many tokens."""
        found: dict[str, Any] = {}
        for count in self.sizes["clients"]:
            steps = self.scheduler(max(self.sizes["clients"]), 16 * 10**9 if self.device.type == "cuda" else 10**9)
            found[str(count)] = {
                "ours, greedy": self._loops(steps, count, lambda chance: {"do_sample": False}),
                "ours, chance": self._loops(
                    steps, count, lambda chance: {"do_sample": True, "temperature": 0.5 + chance.random(), "top_p": 0.9}
                ),
                "generate, one padded batch": self._padded(count),
                "transformers, continuous batching": attempt(lambda count=count: self._peer(count)),
            }
        return found

    def _loops(
        self, steps: Scheduler, count: int, arguments: Callable[[random.Random], dict[str, Any]]
    ) -> dict[str, Any]:
        chance, firsts, written = random.Random(2), [], 0
        waiting: list[float] = []

        def ask() -> None:
            began, started = time.perf_counter(), [False]

            def hear(row: Any, text: str) -> None:
                if not started[0]:
                    started[0] = True
                    firsts.append(time.perf_counter() - began)

            one = self.asked(chance, chance.randint(8, self.sizes["tokens"]), **arguments(chance))
            steps.add(Writing(asked=[one], finish=lambda made: len(made[0][0].tokens), on_token=hear), Job())
            waiting.append(began)

        for _ in range(count):
            ask()
        self.wait()
        start = time.perf_counter()
        while time.perf_counter() - start < self.sizes["seconds"]:
            for _, result in steps.step():
                if isinstance(result, Exception):
                    raise result
                written += result
                ask()
        self.wait()
        seconds = time.perf_counter() - start
        while steps.is_busy:
            steps.step()
        return {
            "tokens/s": round(written / seconds, 1),
            "first token, s, p50": round(statistics.median(firsts), 4) if firsts else None,
            "requests": len(waiting),
        }

    def _padded(self, count: int) -> dict[str, Any]:
        """transformers' `generate` of one padded batch: all wait for the longest text."""
        chance, written = random.Random(2), 0
        self.wait()
        start = time.perf_counter()
        while time.perf_counter() - start < self.sizes["seconds"]:
            asked = [self.asked(chance, chance.randint(8, self.sizes["tokens"])) for _ in range(count)]
            longest = max(len(one.tokens or ()) for one in asked)
            rows = [[END] * (longest - len(one.tokens or ())) + list(one.tokens or ()) for one in asked]
            mask = [[0] * (longest - len(one.tokens or ())) + [1] * len(one.tokens or ()) for one in asked]
            with torch.inference_mode():
                self.llama.generate(
                    input_ids=torch.tensor(rows, device=self.device),
                    attention_mask=torch.tensor(mask, device=self.device), pad_token_id=END,
                    max_new_tokens=max(one.most for one in asked), do_sample=False, eos_token_id=VOCABULARY + 1,
                )  # fmt: skip
            written += sum(one.most for one in asked)
        self.wait()
        return {"tokens/s": round(written / (time.perf_counter() - start), 1)}

    def _peer(self, count: int) -> dict[str, Any]:
        """transformers' own continuous batching, on rounds of requests: greedy, for it shares one way of choosing."""
        if self.device.type != "cuda":
            return {"left out": "on a CPU its cache takes 0.6 of the memory, and half a minute"}
        chance = random.Random(2)
        asked = [self.asked(chance, chance.randint(8, self.sizes["tokens"])) for _ in range(max(count, 16))]
        config = transformers.GenerationConfig(
            do_sample=False, max_new_tokens=self.sizes["tokens"], eos_token_id=-1, pad_token_id=END
        )
        start = time.perf_counter()
        made = self.llama.generate_batch([list(one.tokens or ()) for one in asked], generation_config=config)
        self.wait()
        seconds = time.perf_counter() - start
        tokens = sum(len(one.generated_tokens) for one in made.values())
        return {"tokens/s": round(tokens / seconds, 1), "requests": len(asked), "starts included": True}

    def memory(self) -> dict[str, Any]:
        """Out of memory: the request that needs too much ends, and those beside it do not."""
        if self.device.type != "cuda":
            return {"left out": "a CPU has no such limit"}
        steps = self.scheduler(64, 10**12)  # never reached, so that the device itself runs out of memory
        free, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (total - free) / total + 0.02))
        chance = random.Random(3)
        try:
            small = [self.asked(chance, 16) for _ in range(2)]
            large = [self.asked(chance, 16) for _ in range(40)]
            for one in large:
                one.tokens = [chance.randrange(3, VOCABULARY) for _ in range(1900)]
            made = run(steps, [small[0], *large, small[1]])
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        ended = [one for one in made if isinstance(one, Exception)]
        after = run(steps, [self.asked(chance, 16)])
        if isinstance(after[0], Exception):
            raise AssertionError("nothing is answered any more") from after[0]
        return {
            "ended": len(ended),
            "as": sorted({str(one)[:120] for one in ended}),
            "answered": len(made) - len(ended),
        }


def bert(bench: Bench) -> dict[str, Any]:
    """Sixteen texts of 8 to 128 tokens: one by one, all padded together, and in our batches."""
    from extended_dlc_server.machine.padding import batches, worth_a_call

    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=VOCABULARY, **bench.sizes["bert"])
    model = transformers.BertModel(config).to(bench.device, bench.dtype).eval()
    chance = random.Random(4)
    texts = [[chance.randrange(3, VOCABULARY) for _ in range(chance.randint(8, 128))] for _ in range(16)]
    lengths = [len(text) for text in texts]
    ways = {
        "one by one": [[index] for index in range(16)],
        "all padded": [list(range(16))],
        "our batches": list(batches(lengths, 32, worth_a_call(bench.device))),
    }

    def read(groups: list[list[int]]) -> dict[int, Any]:
        rows = {}
        with torch.inference_mode():
            for group in groups:
                longest = max(lengths[index] for index in group)
                ids = [texts[index] + [0] * (longest - lengths[index]) for index in group]
                mask = [[1] * lengths[index] + [0] * (longest - lengths[index]) for index in group]
                made = model(
                    input_ids=torch.tensor(ids, device=bench.device),
                    attention_mask=torch.tensor(mask, device=bench.device),
                )[0]
                rows |= {index: made[row, 0].float().cpu() for row, index in enumerate(group)}
        return rows

    alone, together = read(ways["one by one"]), read(ways["our batches"])
    wrong = [
        index for index in alone
        if not same(alone[index].tolist(), together[index].tolist(), tolerance_of(model))
    ]  # fmt: skip
    if wrong:
        raise AssertionError(f"{len(wrong)} texts have other vectors in a batch")
    return {
        "batches": len(ways["our batches"]),
        **{f"{name}, texts/s": bench.rate(16, lambda groups=groups: read(groups)) for name, groups in ways.items()},
    }


def whisper(bench: Bench) -> dict[str, Any]:
    """Windows of 30 s, one at a time and eight together, 32 tokens each."""
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        vocab_size=VOCABULARY, decoder_start_token_id=2, eos_token_id=END, pad_token_id=END, bos_token_id=2,
        suppress_tokens=None, begin_suppress_tokens=None, **bench.sizes["whisper"],
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config).to(bench.device, bench.dtype).eval()
    model.generation_config.suppress_tokens = model.generation_config.begin_suppress_tokens = None
    heard = torch.randn(8, config.num_mel_bins, 3000, device=bench.device, dtype=bench.dtype)
    tokens = min(32, bench.sizes["tokens"])

    def write(clips: Any) -> Any:
        with torch.inference_mode():
            return model.generate(clips, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, num_beams=1)

    return {
        "1 at once, audio s/s": round(30 * bench.rate(1, lambda: write(heard[:1])), 1),
        "8 at once, audio s/s": round(30 * bench.rate(8, lambda: write(heard)), 1),
    }


class Tokenizer:
    """As much of a tokenizer as sequences need: each token is a word."""

    all_special_ids: tuple[int, ...] = ()

    def decode(self, tokens: Any, **_: Any) -> str:
        """The tokens as words."""
        return "".join(f" w{int(token)}" for token in tokens)

    def convert_ids_to_tokens(self, tokens: Any) -> Any:
        """The words of a list of tokens, or of one."""
        return f"w{tokens}" if isinstance(tokens, int) else [f"w{token}" for token in tokens]


class Job:
    """A client that waits, and does not disconnect."""

    def __init__(self) -> None:
        self.batch, self.queued, self.result = 0, time.perf_counter(), None

    def is_over(self, now: float) -> bool:
        """It never disconnects."""
        return math.isnan(now)


def run(steps: Scheduler, asked: list[Generation]) -> list[Any]:
    """The results of all, where one joins the running batch every second step."""
    waiting, jobs, count = list(asked), [], 0
    while waiting or steps.is_busy:
        if waiting and steps.has_room() and count % 2 == 0:
            jobs.append(Job())
            steps.add(Writing(asked=[waiting.pop(0)], finish=lambda made: made[0][0].tokens), jobs[-1])
        for job, result in steps.step():
            job.result = result
        count += 1
    return [job.result for job in jobs]


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a section, or the reason why it failed."""
    try:
        return work()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {"failed": f"{type(error).__name__}: {error}"[:500], "at": f"{Path(where.filename).name}:{where.lineno}"}


def main() -> int:
    """Run each section; 1 if one that tests our code failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8, help="no section is begun after them")
    options = parser.parse_args()
    bench, began = Bench(options.size, options.device), time.perf_counter()
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        **{"torch": torch.__version__, "transformers": transformers.__version__, "dtype": str(bench.dtype)},
        "weights": sum(one.numel() for one in bench.llama.parameters()),
    }
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "correct": bench.correct,
        "clients": bench.clients,
        "bert": lambda: bert(bench),
        "whisper": lambda: whisper(bench),
        "memory": bench.memory,
    }
    for name, section in sections.items():
        if time.perf_counter() - began > options.minutes * 60:
            found[name] = {"failed": "no time was left"}
            continue
        start = time.perf_counter()
        found[name] = {**attempt(section), "seconds": round(time.perf_counter() - start, 1)}
        print(name, json.dumps(found[name]), flush=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(any("failed" in one for one in found.values() if isinstance(one, dict)))


if __name__ == "__main__":
    sys.exit(main())
