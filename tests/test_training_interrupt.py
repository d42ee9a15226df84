import os
import signal
import threading

import pytest

from fewshot.training.interrupt import deferred_signals


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_recorded_and_the_second_has_its_usual_effect(signum):
    class Usual(Exception):
        pass

    def usual(number, frame):
        raise Usual

    before = signal.signal(signum, usual)
    try:
        with deferred_signals() as received:
            assert not received
            os.kill(os.getpid(), signum)
            assert received == [signum]
            with pytest.raises(Usual):
                os.kill(os.getpid(), signum)
        assert signal.getsignal(signum) is usual
    finally:
        signal.signal(signum, before)


def test_another_thread_leaves_signals_alone():
    handlers = []

    def work():
        with deferred_signals():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]
