"""Interrupts: Ctrl-C, SIGTERM (preemption, `nasray job stop`) and SIGHUP all end work in the same orderly way.

Each of them raises `InterruptError`, a KeyboardInterrupt, in the main thread. A signal that is repeated at once is the
same wish; while a clean-up runs, signals are ignored for `PATIENCE` seconds, and after that the process ends at once.
A signal is sent again a moment later where an exception would be dropped (finalizers, callbacks of weak references) or
would leave the lock of imports held for ever, so that other threads could import no more (the import system itself).
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

REPEATED = 1.0
"""Seconds within which a second signal is the same wish as the first."""
AGAIN = 0.05
"""Seconds after which a signal that came at a wrong moment is sent again."""
PATIENCE = 20.0
"""Seconds for which a clean-up is not interrupted."""
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler, None)

_handlers: dict[signal.Signals, Any] = {}
_last = float("-inf")
_is_coming = False
_closing_since: float | None = None


class InterruptError(KeyboardInterrupt):
    """An interrupt by a signal.

    Args:
        signum: Number of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of an interrupted command: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + getattr(interrupt, "signum", signal.SIGINT)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn signals into `InterruptError` within the context; handlers of the caller's own stay as they are.

    Nothing happens outside the main thread, which alone may set handlers, or where an outer context does it already.
    """
    global _last
    if _handlers or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    _last = float("-inf")
    _handlers.update({signum: _interrupt if old in _DEFAULTS else old for signum, old in before.items()})
    renew_handlers()
    hook = sys.unraisablehook

    def keep_interrupt(dropped: sys.UnraisableHookArgs) -> None:
        if isinstance(dropped.exc_value, InterruptError):
            _send_again(dropped.exc_value.signum)
        else:
            hook(dropped)

    sys.unraisablehook = keep_interrupt
    try:
        yield
    finally:
        sys.unraisablehook = hook
        _handlers.clear()
        for signum, old in before.items():
            signal.signal(signum, signal.SIG_DFL if old is None else old)


def renew_handlers() -> None:
    """Set the handlers again after a library, such as Ray, has put its own in their place."""
    if threading.current_thread() is threading.main_thread():
        for signum, handler in _handlers.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def closing() -> Iterator[None]:
    """Let no signal interrupt a clean-up within the context, for `PATIENCE` seconds."""
    global _closing_since
    before = _closing_since
    _closing_since = time.monotonic() if before is None else before
    try:
        yield
    finally:
        _closing_since = before


def ignore_signals() -> None:
    """Ignore further signals: the process ends in any case."""
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _send_again(signum: int) -> None:
    global _is_coming
    if not _is_coming:
        _is_coming = True
        _thread.start_new_thread(_deliver, (signum,))  # threading.Thread waits for locks that this thread may hold


def _deliver(signum: int) -> None:
    global _is_coming, _last
    time.sleep(AGAIN)
    _is_coming, _last = False, float("-inf")
    signal.pthread_kill(threading.main_thread().ident or 0, signum)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    global _last
    now = time.monotonic()
    if _closing_since is not None:
        if now - _closing_since > PATIENCE:
            os._exit(128 + signum)  # Ray's processes follow this one
        return
    if _is_coming or now - _last < REPEATED:
        return
    if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        _send_again(signum)
        return
    _last = now
    raise InterruptError(signum)
