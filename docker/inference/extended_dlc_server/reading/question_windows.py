"""Refuses windows of a text that overlap so much that each token of it would be read many times."""

from __future__ import annotations

from typing import Any

from ..errors import RequestError
from ..machine.ending import check
from .counting import Counter
from .inputs import strings_in

MOST_READ = 8
"""How often each token of a text may be read because of overlapping windows."""

WITH_QUESTION = {"question-answering": (384, 128), "document-question-answering": (10**6, 256)}
"""Tasks with windows that hold a question too -> maximum window and overlap of the pipeline."""


def check_windows(
    inputs: Any, arguments: dict[str, Any], *, task: str, model_length: int | None, most: int, counter: Counter
) -> None:
    """400 if overlapping windows have too little new text each; sets the window if its default is above `most`.

    The step from one window to the next is what the question and the overlap leave free. With a step of one token,
    a page would become as many windows as it has tokens, all in memory at once. `model_length` is the tokenizer's.
    """
    usual, overlap = WITH_QUESTION[task]
    names = usual if model_length is None else min(usual, model_length)
    if names > most:
        arguments.setdefault("max_seq_len", most)
    length = arguments.get("max_seq_len", names)
    stride = arguments.get("doc_stride", min(length // 2, overlap))
    for one in inputs if isinstance(inputs, list) else [inputs]:
        check()
        questions = one["question"] if isinstance(one["question"], list) else [one["question"]]
        taken = max(counter.count(question, length) for question in questions)
        if task == "question-answering":  # its pipeline truncates the question
            taken = min(taken, arguments.get("max_question_len", 64))
        left = length - taken - counter.special_of_pair
        rest = (text for name in ("context", "word_boxes") for text in strings_in(one.get(name, ())))
        if sum(map(counter.upper_bound, rest)) > left and MOST_READ * (left - stride) < length:
            raise RequestError(
                400,
                "bad-parameters",
                f"the text is read in windows of {length} tokens ('max_seq_len'), of which the question takes "
                f"{taken} and the overlap {stride} ('doc_stride'): at least one in {MOST_READ} must be new text, "
                "so send a shorter question, a smaller 'doc_stride' or a larger 'max_seq_len'",
            )
