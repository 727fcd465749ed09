"""Lines of progress, and what is repeated beside the work."""

import io
import math
import threading
import time

from nasray.cluster.progress import ProgressLine, part_of, repeating


def test_lines_say_what_there_is_to_say_of_the_whole_but_for_the_last_one():
    stream, told = io.StringIO(), []
    line = ProgressLine("training", 10, stream=stream, interval=0)
    with part_of(lambda left: told.append(left) or "run ETA 1:02:03"):
        line.update(0)
        line.update(5)
        line.update(10, final=True)
    line.update(5)
    texts = stream.getvalue().splitlines()
    assert [text.endswith("  run ETA 1:02:03") for text in texts] == [True, True, False, False]
    assert told[0] == math.inf
    assert 0 < told[1] < 60


def test_a_function_is_repeated_until_the_end_whatever_it_raises():
    calls, enough = [], threading.Event()

    def call():
        calls.append(threading.current_thread())
        if len(calls) == 3:
            enough.set()
        if len(calls) < 3:
            raise OSError("nobody takes it")

    with repeating(call, 0.01):
        assert enough.wait(20)
    num = len(calls)
    assert not calls[0].is_alive()
    time.sleep(0.05)
    assert len(calls) == num


def test_a_function_says_when_it_is_called_again():
    calls, pauses, called = [], iter([0.01, math.inf]), threading.Event()

    def call():
        calls.append(time.monotonic())
        pause = next(pauses)
        if pause == math.inf:
            called.set()
        return pause

    with repeating(call, 100.0, first=0.01):
        assert called.wait(20)
        time.sleep(0.05)
    assert len(calls) == 2


def test_the_end_waits_for_a_call_only_if_it_should():
    for join in (True, False):
        begun, go_on, ended = threading.Event(), threading.Event(), []

        def call(begun=begun, go_on=go_on, ended=ended):
            begun.set()
            go_on.wait(20)
            ended.append(1)
            return math.inf

        threading.Timer(0.3, go_on.set).start()
        with repeating(call, 0.01, join=join):
            assert begun.wait(20)
        assert bool(ended) == join
