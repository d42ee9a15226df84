"""Images of requests that come at about the same time are embedded together, in lanes.

A lane is a thread that embeds one batch after another, on a share of the cores: those of one lane would wait for each
other at every layer. If torch does not use all cores, the images of the next batch are decoded meanwhile. Half of the
images that wait are a batch. Few wait for company, for a moment, if others have come lately. The queue is bounded.
Single images go before large requests.
"""

from __future__ import annotations

import asyncio
import heapq
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import torch

from fewshot.embedding.network import Embedded
from fewshot.errors import ImageDecodeError
from fewshot.serve.metrics import Metrics
from fewshot.serve.problems import busy
from fewshot.utils.threads import compute_on

#: Most batches at once.
MOST_LANES = 4
#: Fewer items than LEAST wait for others: on a processor, a batch of one takes twice as long for each, also one that is
#: left of a larger batch. While another batch is embedded, they wait up to TURNS times as long as otherwise.
LEAST, TURNS = 4, 5
#: Most items in a batch, and of a request that is not large. At most LATER others overtake a large one.
BATCH, SMALL, LATER = 16, 4, 64


@dataclass(order=True)
class _Job:
    """Items of one request."""

    turn: int
    embedder: Any = field(compare=False)
    items: Sequence[Any] = field(compare=False)
    thumbnails: bool = field(compare=False)
    done: asyncio.Future[Embedded] = field(compare=False)


class Batcher:
    """Embed the items of concurrent requests together.

    Parameters
    ----------
    metrics : Metrics
        Told how long the queue and the batches are.
    most : int
        Most items that wait.
    seconds : float
        How long the first item waits for others.
    """

    def __init__(self, metrics: Metrics, most: int, seconds: float) -> None:
        self._metrics, self._most, self._seconds = metrics, most, seconds
        self._jobs: list[_Job] = []
        self._numbers, self._waiting, self._has_jobs = count(), 0, asyncio.Event()
        n_threads = torch.get_num_threads()
        self._n_lanes = min(n_threads, MOST_LANES)
        self._threads = ThreadPoolExecutor(self._n_lanes, "embedding", compute_on, (n_threads // self._n_lanes,))
        self._decoders = ThreadPoolExecutor(self._n_lanes, "decoding") if n_threads < (os.cpu_count() or 1) else None
        self._busy, self._had_company = 0, False

    async def embed(self, embedder: Any, items: Sequence[Any], thumbnails: bool = False) -> Embedded:
        """Return the embeddings of items, which the embedder may fail to read.

        Raises
        ------
        Problem
            If too many items wait already.
        """
        if self._waiting + len(items) > self._most and self._waiting:
            raise busy(f"{self._waiting} images are waiting already")
        parts = []
        for start in range(0, len(items), BATCH):
            part = items[start : start + BATCH]
            job = _Job(
                next(self._numbers) + LATER * (len(items) > SMALL), embedder, part, thumbnails,
                asyncio.get_running_loop().create_future(),
            )  # fmt: skip
            heapq.heappush(self._jobs, job)
            self._count(len(part))
            parts.append(job.done)
        self._has_jobs.set()
        try:
            return joined(await asyncio.gather(*parts))
        finally:
            for done in parts:
                done.cancel()  # of a client that has gone, or after an error

    async def run(self) -> None:
        """Embed whatever comes, until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            for _ in range(self._n_lanes + (self._decoders is not None)):
                lanes.create_task(self._embed_batches())

    async def _embed_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._jobs:
                self._has_jobs.clear()
                await self._has_jobs.wait()
            await self._wait_for_company()
            if not (batch := self._next()):
                continue
            n = sum(len(job.items) for job in batch)
            self._metrics.batch.observe(n)
            self._had_company, self._busy = n > 1, self._busy + 1
            try:
                items: Sequence[Any] = [item for job in batch for item in job.items]
                if self._decoders is not None:
                    items = await loop.run_in_executor(self._decoders, _prepared, batch[0], items)
                found = await loop.run_in_executor(self._threads, _embed_jobs, batch, items)
            finally:
                self._busy -= 1
            for job, embedded in zip(batch, found, strict=True):
                if job.done.done():
                    continue
                if isinstance(embedded, Embedded):
                    job.done.set_result(embedded)
                else:
                    job.done.set_exception(embedded)

    async def _wait_for_company(self) -> None:
        """Wait while few images wait: for a lane, and then for a moment if others are on their way."""
        turns = 0
        while self._waiting < LEAST:
            if self._busy < self._n_lanes:
                if turns == TURNS or not (self._busy or (self._had_company and not turns)):
                    return
                turns += 1
            await asyncio.sleep(self._seconds)

    def _next(self) -> list[_Job]:
        """Return the jobs of the next batch, which share an embedder and whether they want thumbnails."""
        batch: list[_Job] = []
        n, most = 0, min(max(LEAST, self._waiting // 2 // LEAST * LEAST), BATCH)
        while self._jobs:
            job = self._jobs[0]
            first = batch[0] if batch else job
            if job.done.cancelled():
                heapq.heappop(self._jobs)
                self._count(-len(job.items))
                continue
            if job.embedder is not first.embedder or job.thumbnails != first.thumbnails:
                break
            if batch and n + len(job.items) > most:
                break
            batch.append(heapq.heappop(self._jobs))
            self._count(-len(job.items))
            n += len(job.items)
        return batch

    def _count(self, change: int) -> None:
        self._waiting += change
        self._metrics.queue.set(self._waiting)

    def close(self) -> None:
        """End the threads."""
        for pool in (self._threads, self._decoders):
            if pool is not None:
                pool.shutdown(cancel_futures=True)


def _prepared(job: _Job, items: Sequence[Any]) -> Sequence[Any]:
    """Return the items of a batch, decoded if that works; if not, embedding each job alone tells whose fault it is."""
    try:
        return job.embedder.prepare(items, thumbnails=job.thumbnails)
    except Exception:
        return items


def _embed_jobs(jobs: Sequence[_Job], items: Sequence[Any]) -> list[Embedded | BaseException]:
    """Return the embeddings of each job, or its error."""
    try:
        together = jobs[0].embedder.embed(items, thumbnails=jobs[0].thumbnails, on_error="skip")
    except Exception as error:
        if len(jobs) == 1:
            return [error]
        return [_embed_jobs([job], job.items)[0] for job in jobs]  # one must not fail because of another
    found: list[Embedded | BaseException] = []
    start = 0
    for job in jobs:
        end = start + len(job.items)
        errors = [
            ImageDecodeError(error.source, error.reason, error.index - start)
            for error in together.errors
            if error.index is not None and start <= error.index < end
        ]
        found.append(Embedded(together.embeddings[start:end], errors, together.thumbnails[start:end]))
        start = end
    return found


def joined(parts: Sequence[Embedded]) -> Embedded:
    """Return the embeddings of consecutive parts."""
    if len(parts) == 1:
        return parts[0]
    errors, start = [], 0
    for part in parts:
        errors += [ImageDecodeError(one.source, one.reason, start + (one.index or 0)) for one in part.errors]
        start += len(part.embeddings)
    pictures = [picture for part in parts for picture in part.thumbnails]
    return Embedded(np.concatenate([part.embeddings for part in parts]), errors, pictures)
