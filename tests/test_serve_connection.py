"""What is sent together, so that a response takes one call of the system."""

import asyncio

import pytest

from fewshot.serve.connection import MOST_HELD, _Together


class Recorded:
    """A transport that keeps what is written to it."""

    def __init__(self):
        self.sent, self.is_ended = [], False

    def write(self, data):
        self.sent.append(data)

    def is_closing(self):
        return self.is_ended

    def close(self):
        self.is_ended = True


@pytest.fixture
def recorded():
    return Recorded()


def test_what_is_written_at_once_is_sent_together(recorded):
    async def respond():
        together = _Together(recorded, asyncio.get_running_loop())
        together.write(b"head ")
        together.write(b"body")
        assert recorded.sent == []
        await asyncio.sleep(0)
        assert recorded.sent == [b"head body"]
        together.write(b"next")
        await asyncio.sleep(0)
        assert recorded.sent == [b"head body", b"next"]

    asyncio.run(respond())


def test_much_is_not_held_and_nothing_is_lost_at_the_end(recorded):
    async def respond():
        together = _Together(recorded, asyncio.get_running_loop())
        together.write(b"a")
        together.write(b"b" * MOST_HELD)
        assert [len(part) for part in recorded.sent] == [MOST_HELD + 1]
        together.write(b"end")
        together.close()
        assert recorded.sent[-1] == b"end"
        assert together.is_closing()
        await asyncio.sleep(0)
        assert len(recorded.sent) == 2

    asyncio.run(respond())
