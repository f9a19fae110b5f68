"""Where the copies of a model go, and one queue in front of several."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from extended_dlc_server.errors import RequestError, StartError
from extended_dlc_server.machine import devices, freed
from extended_dlc_server.machine.devices import AUTO, CPU, Gpu, Placement, choose_devices
from extended_dlc_server.machine.worker import FatalError, Shared, State, Worker
from extended_dlc_server.model import loading
from extended_dlc_server.routes.app import App
from extended_dlc_server.settings import Settings

GIGABYTE = 10**9
T4, A10G, H100 = (
    Gpu(free=15 * GIGABYTE, capability=(7, 5)),
    Gpu(free=23 * GIGABYTE, capability=(8, 6)),
    Gpu(free=80 * GIGABYTE, capability=(9, 0)),
)


def placed(gpus, gigabytes=1.0, stored="bfloat16", configured="auto", has_accelerate=True, amx=False):
    options = {"configured": configured, "has_accelerate": has_accelerate, "cpu_multiplies_bfloat16": amx}
    return choose_devices(gpus, size=int(gigabytes * GIGABYTE), stored=stored, **options)


# devices and precision


def test_without_a_gpu_there_is_one_copy_on_the_cpu_in_single_precision():
    assert placed([], 500) == Placement(devices=(CPU,), dtype="float32")


def test_each_gpu_has_a_copy_of_a_model_that_fits_on_one():
    assert placed([A10G]).devices == (0,)
    assert placed([A10G] * 4, 20.7).devices == (0, 1, 2, 3)


def test_a_model_larger_than_one_gpu_is_spread_over_all():
    assert placed([A10G] * 4, 20.8).devices == (AUTO,)
    assert placed([A10G, H100], 40).devices == (AUTO,)


def test_a_model_that_only_just_fits_on_the_only_gpu_is_tried():
    assert placed([A10G], 22.9).devices == (0,)
    with pytest.raises(StartError, match=r"need 23\.1 GB in bfloat16 and the GPU has 23\.0 GB free: .* larger GPU"):
        placed([A10G], 23.1)


def test_a_model_larger_than_all_gpus_together_is_refused():
    assert placed([A10G] * 4, 91).devices == (AUTO,)
    with pytest.raises(StartError, match=r"need 93\.0 GB in bfloat16 and the 4 GPUs have 92\.0 GB free together"):
        placed([A10G] * 4, 93)


def test_spreading_needs_accelerate_and_says_so():
    with pytest.raises(StartError, match=r"only the package accelerate .* code/requirements\.txt"):
        placed([A10G] * 2, 30, has_accelerate=False)
    assert placed([A10G] * 2, 20, has_accelerate=False).devices == (0, 1)


def test_weights_count_in_the_precision_in_which_they_are_loaded():
    assert placed([A10G] * 2, 40, stored="float32").devices == (0, 1)
    assert placed([A10G] * 2, 40, stored="float32", configured="float32").devices == (AUTO,)
    assert placed([A10G] * 2, 20, stored="bfloat16", configured="float32").devices == (AUTO,)
    assert placed([A10G] * 2, 40, stored=None).devices == (AUTO,)


@pytest.mark.parametrize(
    ("gpus", "stored", "configured", "dtype"),
    [
        ([H100], "float32", "auto", "bfloat16"),
        ([H100], "bfloat16", "auto", "bfloat16"),
        ([H100], None, "auto", "bfloat16"),
        ([H100], "float16", "auto", "float16"),
        ([T4], "float32", "auto", "float16"),
        ([T4], "bfloat16", "auto", "float16"),
        ([H100, T4], "float32", "auto", "float16"),
        ([T4], "float16", "float32", "float32"),
        ([H100], "float32", "float16", "float16"),
        ([], "float32", "bfloat16", "bfloat16"),
    ],
)
def test_the_precision_is_the_devices_unless_one_is_configured(gpus, stored, configured, dtype):
    assert placed(gpus, stored=stored, configured=configured).dtype == dtype


@pytest.mark.parametrize(
    ("megabytes", "stored", "configured", "dtype"),
    [
        (80, "float32", "auto", "bfloat16"),
        (79, "float32", "auto", "float32"),
        (80, None, "auto", "bfloat16"),
        (79, None, "auto", "float32"),
        (40, "bfloat16", "auto", "bfloat16"),
        (39, "bfloat16", "auto", "float32"),
        (50, "float16", "auto", "bfloat16"),
        (500, "float32", "float32", "float32"),
        (1, "float32", "bfloat16", "bfloat16"),
    ],
)
def test_a_large_model_gets_bfloat16_on_a_cpu_that_multiplies_it(megabytes, stored, configured, dtype):
    assert placed([], megabytes / 1000, stored, configured, amx=True).dtype == dtype
    assert placed([A10G], megabytes / 1000, stored, configured, amx=True) == placed(
        [A10G], megabytes / 1000, stored, configured
    )


@pytest.mark.parametrize(("for_own_code", "dtype"), [(False, "torch.bfloat16"), (True, "torch.float32")])
def test_the_users_own_code_gets_tensors_that_numpy_takes(models, monkeypatch, for_own_code, dtype):
    monkeypatch.setattr(devices, "LARGE", 0)
    monkeypatch.setattr(loading, "multiplies_bfloat16", lambda: True)
    settings = Settings(model_folder=models / "bert-classifier")
    (found,) = loading.load_pipelines(settings, for_own_code=for_own_code)
    assert str(found.pipeline.model.dtype) == dtype


# one queue, several copies


class Copies:
    """Copies of a model that record their jobs, and wait for a signal to finish them."""

    def __init__(self, count):
        self.ran = {number: [] for number in range(count)}
        self.go = threading.Event()
        self.worker = Worker(lambda: list(self.ran), queue_length=100)
        self.worker.start()
        while self.worker.state is State.LOADING:
            time.sleep(0.001)

    def submit(self, item, key=None):
        def alone(number):
            self.ran[number].append(item)
            if item == "fatal":
                raise FatalError("CUDA error: an illegal memory access was encountered")
            self.go.wait(60)
            return number

        shared = Shared(key=key, item=item, most=16, run=self.together) if key else None
        return self.worker.submit(alone, shared).future

    def together(self, number, items):
        self.ran[number].append(list(items))
        return [number] * len(items)


def returned(watch, *, wanted=0):
    """Run the task that returns memory until it did so `wanted` times; return, for each time, whether it was idle."""
    times, real = [], freed.return_memory

    def noted(idle):
        real(idle)
        times.append(idle)

    async def run():
        task = asyncio.get_running_loop().create_task(watch())
        deadline = time.monotonic() + 20
        while len(times) < wanted and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freed, "return_memory", noted)
        patch.setattr(freed, "LOOK_SECONDS", 0.01)
        asyncio.run(run())
    return times


def test_memory_goes_back_to_the_system_once_the_server_is_idle():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    memory = freed.FreedMemory()
    with ThreadPoolExecutor(1) as threads:
        assert returned(lambda: memory.watch(lambda: True, threads)) == []  # no memory was used
        memory.note_use()
        blocks = [b"1" * size for size in [100_000] * 1000]
        kept = blocks[-1]  # the heap cannot simply be cut off before this block
        at_work = resident()
        del blocks
        assert returned(lambda: memory.watch(lambda: True, threads), wanted=1) == [True]  # once, after all uses
    assert at_work - resident() >= 80e6
    assert len(kept) == 100_000


def test_memory_goes_back_once_a_minute_where_no_pause_comes(monkeypatch):
    memory = freed.FreedMemory()
    memory.note_use()
    with ThreadPoolExecutor(1) as threads:
        assert returned(lambda: memory.watch(lambda: False, threads)) == []
        monkeypatch.setattr(freed, "MOST_KEPT", 0.2)
        times = returned(lambda: memory.watch(lambda: False, threads), wanted=2)
    assert len(times) >= 2
    assert not any(times)


def test_the_app_tidies_up_once_no_request_is_being_answered():
    app = App(Settings(), Worker(list, queue_length=1))
    app._freed.note_use()
    app._admitted = 1
    assert returned(app.tidy_up) == []
    app._admitted = 0
    assert returned(app.tidy_up, wanted=1) == [True]


def test_requests_are_spread_over_the_copies():
    copies = Copies(2)

    async def ask():
        futures = [copies.submit(item) for item in ("a", "b", "c")]
        await asyncio.sleep(0.1)
        running = {item for items in copies.ran.values() for item in items}
        copies.go.set()
        return running, await asyncio.gather(*futures)

    running, answers = asyncio.run(ask())
    assert running == {"a", "b"}
    assert set(answers) == {0, 1}


def test_a_copy_that_is_free_takes_a_batch_while_the_other_is_busy():
    copies = Copies(2)

    async def ask():
        busy = [copies.submit("a"), copies.submit("b")]
        await asyncio.sleep(0.1)
        together = [copies.submit(item, key="same") for item in ("c", "d", "e")]
        copies.go.set()
        return await asyncio.gather(*busy, *together)

    asyncio.run(ask())
    assert ["c", "d", "e"] in [*copies.ran[0], *copies.ran[1]]


def test_a_copy_that_breaks_ends_all_and_everybody_is_told():
    copies = Copies(2)

    async def ask():
        futures = [copies.submit(item) for item in ("a", "fatal", "c")]
        return await asyncio.gather(*futures, return_exceptions=True)

    answers = asyncio.run(ask())
    assert copies.worker.state is State.FAILED
    assert "illegal memory access" in copies.worker.failure
    assert [(type(answer), answer.code) for answer in answers] == [(RequestError, "model-failed")] * 3
    copies.go.set()


def test_one_stuck_copy_counts_although_the_other_works():
    copies = Copies(2)

    async def ask():
        stuck = copies.submit("a")
        await asyncio.sleep(0.2)
        await copies.worker.submit(lambda number: number).future
        seconds = copies.worker.busy_seconds
        copies.go.set()
        await stuck
        return seconds

    assert asyncio.run(ask()) > 0.1  # counted from the start of its thread, which is a little later


def test_two_copies_of_a_real_model_answer_as_one(models, monkeypatch):
    """Two copies on the CPU, as on two GPUs."""
    from extended_dlc_server.model import loading
    from extended_dlc_server.reading.decoding import Decoded
    from extended_dlc_server.settings import Settings

    monkeypatch.setattr(loading, "choose_devices", lambda *_, **__: Placement(devices=(CPU, CPU), dtype="float32"))
    copies = loading.load_model(Settings(model_folder=models / "bloom"))
    assert len({id(copy.pipeline.model) for copy in copies}) == 2
    worker = Worker(lambda: copies, queue_length=100)
    worker.start()
    while worker.state is State.LOADING:
        time.sleep(0.01)
    texts = ["hello", "the quick brown fox", "a", "amazon sagemaker serves models"] * 6
    requests = [Decoded(inputs=text, parameters={"max_new_tokens": 6, "do_sample": False}) for text in texts]
    alone = [copies[0].answer(request) for request in requests]
    ran = set()

    def answer(copy, request):
        ran.add(id(copy))
        return copy.answer(request)

    async def ask():
        spread = [worker.submit(lambda copy, one=one: answer(copy, one)).future for one in requests]
        together = [worker.submit(copies[0].answer, writing=copies[0].joins(one)(None)) for one in requests]
        answers = await asyncio.gather(*spread), await asyncio.gather(*(job.future for job in together))
        return *answers, max(job.batch for job in together)

    one_by_one, in_batches, largest = asyncio.run(ask())
    assert one_by_one == alone
    assert in_batches == alone
    assert ran == {id(copy) for copy in copies}
    assert largest > 1
