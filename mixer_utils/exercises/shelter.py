"""A shelter for somebody else's code: an endless loop or a huge tensor ends a check, and not the notebook's kernel."""

import contextlib
import ctypes
import io
import multiprocessing
import os
import sys
import threading
import warnings
from pathlib import Path

import torch

SECONDS = 20
GIGABYTES = 2


class Stopped(Exception):
    """The sentence on code that was stopped, or that brought its process down."""


def sheltered(work, seconds=SECONDS, gigabytes=GIGABYTES):
    """(what ``work()`` returns, what it printed), from a process of its own with limits of time and memory.

    Linux can split a process in two at any moment, with all that the notebook has defined. Elsewhere ``work`` runs in
    this process and only its time is limited: a loop in Python is stopped, a tensor too large for the machine is not.
    ``work`` must return something that pickles. Raises Stopped.
    """
    if sys.platform == "linux":
        return in_a_fork(work, seconds, gigabytes)
    return under_a_timer(work, seconds)


def in_a_fork(work, seconds, gigabytes=GIGABYTES):
    """``sheltered`` on Linux. Raises Stopped."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=tell, args=(work, sender, gigabytes), daemon=True)
    with warnings.catch_warnings():  # Python warns of forks beside threads; the other threads hold no lock we need
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise Stopped(too_late(seconds))
        return receiver.recv()
    except EOFError:
        process.join()
        raise Stopped(
            f"your code brought its process down (exit status {process.exitcode}): "
            "a tensor too large for the memory, or a function that calls itself without end?"
        ) from None
    finally:
        process.kill()
        process.join()


def tell(work, sender, gigabytes):
    """In the forked process: do the work and send what it returns and prints."""
    torch.set_num_threads(1)  # the threads of the parent's pool are not copied, and would be waited for
    limit_memory(gigabytes)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        result = work()
    sender.send((result, printed.getvalue()))


def limit_memory(gigabytes):
    """Let this process take so much more than it has now."""
    import resource  # not on Windows

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + round(gigabytes * 1e9)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


class TimeIsUp(BaseException):
    """Not an Exception, so that an answer's own ``except Exception`` does not swallow it."""


def under_a_timer(work, seconds):
    """``sheltered`` elsewhere. Raises Stopped."""
    thread = ctypes.c_ulong(threading.get_ident())
    stop = ctypes.pythonapi.PyThreadState_SetAsyncExc
    timer = threading.Timer(seconds, stop, (thread, ctypes.py_object(TimeIsUp)))
    printed = io.StringIO()
    try:
        timer.start()
        try:
            with contextlib.redirect_stdout(printed):
                result = work()
        finally:
            timer.cancel()
            timer.join()
    except TimeIsUp:
        raise Stopped(too_late(seconds)) from None
    return result, printed.getvalue()


def too_late(seconds):
    return f"your code was still running after {seconds:g} s and was stopped: look for a loop that never ends"
