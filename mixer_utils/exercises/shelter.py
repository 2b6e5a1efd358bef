"""A shelter for somebody else's code: an endless loop or a huge tensor ends a check, and not the notebook's kernel."""

import contextlib
import ctypes
import io
import multiprocessing
import os
import sys
import threading
import warnings

import torch

SECONDS, GIGABYTES = 20, 2


class Stopped(Exception):
    """The sentence on code that was stopped, or that brought its process down."""


def sheltered(work, seconds=SECONDS, gigabytes=GIGABYTES):
    """(what ``work()`` returns, what it printed), from a process of its own with limits of time and memory.

    Linux can split a process in two at any moment, with all that the notebook has defined. Elsewhere ``work`` runs in
    this process and only its time is limited: a loop in Python is stopped, a tensor too large for the machine is not.
    ``work`` must return something that pickles. Raises Stopped.
    """
    return in_a_fork(work, seconds, gigabytes) if sys.platform == "linux" else under_a_timer(work, seconds)


def in_a_fork(work, seconds, gigabytes=GIGABYTES):
    """Raises Stopped."""
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
    import resource  # not on Windows

    torch.set_num_threads(1)  # the threads of the parent's pool are not copied, and would be waited for
    with open("/proc/self/statm", encoding="ascii") as pages:
        now = int(pages.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = now + round(gigabytes * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        found = work()
    sender.send((found, printed.getvalue()))


class TimeIsUp(BaseException):
    """Not an Exception, so that an answer's own ``except Exception`` does not swallow it."""


def under_a_timer(work, seconds):
    """Raises Stopped."""
    thread = ctypes.c_ulong(threading.get_ident())
    stop = ctypes.pythonapi.PyThreadState_SetAsyncExc
    timer = threading.Timer(seconds, stop, (thread, ctypes.py_object(TimeIsUp)))
    printed = io.StringIO()
    try:
        timer.start()
        try:
            with contextlib.redirect_stdout(printed):
                found = work()
        finally:
            timer.cancel()
            timer.join()
    except TimeIsUp:
        raise Stopped(too_late(seconds)) from None
    return found, printed.getvalue()


def too_late(seconds):
    return f"your code was still running after {seconds:g} s and was stopped: look for a loop that never ends"
