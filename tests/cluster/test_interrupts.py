"""Signals in a process of its own; what they do to a search with Ray is in test_session.py."""

import os
import signal
import subprocess
import sys
import time

import pytest

from nasray.cluster import interrupts
from nasray.cluster.interrupts import InterruptError, closing, exit_code, interruptible, renew_handlers

CODE = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever nohup made of it
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever a shell's & made of it
from nasray import cli
from nasray.cluster.interrupts import closing

def work(known):
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        with closing():
            time.sleep(1.5)
            print("cleaned", flush=True)

cli.listing._list = work
cli.command_line()
"""


def start():
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "list", "spaces"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "working\n"
    return process


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_command_ends_in_an_orderly_way_however_often_it_is_told(signum, code):
    process = start()
    for pause in (0, 0.01, 0.4, 0.8):
        time.sleep(pause)
        os.kill(process.pid, signum)
    output, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert output == "cleaned\n"
    assert error == "\nnasray: interrupted\n"


def test_an_interrupt_where_python_drops_exceptions_is_not_lost(capfd):
    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    @interruptible()
    def work():
        Finalized()
        time.sleep(10)

    hook = sys.unraisablehook
    with pytest.raises(InterruptError, match="SIGTERM"):
        work()
    assert sys.unraisablehook is hook
    assert capfd.readouterr().err == ""


def test_an_interrupt_leaves_imports_possible():
    """Three hundred signals to a thread that takes and leaves locks of imports; then another thread imports."""
    code = """
import importlib._bootstrap, os, signal, threading, time
from nasray.cluster import interrupts

interrupts.REPEATED, interrupts.AGAIN = 0.002, 0.001
interrupted, over = 0, threading.Event()

def send():
    time.sleep(0.2)
    for _ in range(300):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.005)
    time.sleep(0.1)
    over.set()

def take_locks():
    while not over.is_set():
        with importlib._bootstrap._ModuleLockManager("x"):
            pass

def repeat(work):
    global interrupted
    while not over.is_set():
        try:
            work()
        except interrupts.InterruptError:
            interrupted += 1

def import_more():
    import wsgiref.util

with interrupts.interruptible():
    threading.Thread(target=send).start()
    repeat(lambda: repeat(take_locks))
other = threading.Thread(target=import_more, daemon=True)
other.start()
other.join(10)
print(interrupted > 0, other.is_alive(), flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("True False\n", "")


def test_handlers_come_and_go():
    before = signal.getsignal(signal.SIGTERM)
    with interruptible():
        ours = signal.getsignal(signal.SIGTERM)
        assert ours is not before
        with interruptible():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as libraries do
            renew_handlers()
            assert signal.getsignal(signal.SIGTERM) is ours
        with pytest.raises(InterruptError, match="SIGTERM") as caught:
            signal.raise_signal(signal.SIGTERM)
        assert exit_code(caught.value) == 143
        signal.raise_signal(signal.SIGTERM)  # at once again: the same wish
    assert signal.getsignal(signal.SIGTERM) is before
    assert exit_code(KeyboardInterrupt()) == 130


def test_handlers_of_the_callers_own_stay():
    met = []
    before = signal.signal(signal.SIGTERM, lambda *_: met.append(1))
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with interruptible():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            renew_handlers()
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
        assert met == [1]
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, ignored)


def test_a_second_wish_interrupts_again_but_not_a_clean_up(monkeypatch):
    monkeypatch.setattr(interrupts, "REPEATED", 0.0)
    with interruptible():
        for _ in range(2):
            with pytest.raises(InterruptError):
                signal.raise_signal(signal.SIGTERM)
        with closing():
            signal.raise_signal(signal.SIGTERM)
