"""Tasks on several processes or machines, by dask.distributed; none that fails, or kills its worker, stops the others.

A task whose worker dies is run again by another one. What makes four workers die, most likely for want of memory, has
failed.
"""

from collections.abc import Callable, Iterator
from typing import Any

from ..signals.errors import OptionError, require_extra, require_int


def run_tasks(function: Callable, tasks: list, dask: str | int | None = None) -> Iterator[tuple[Any, Any, str]]:
    """Yield (task, what the function returns, what went wrong) for each task as it ends; "" where nothing went wrong.

    Parameters
    ----------
    function : of one task; on a cluster it and the tasks are pickled
    tasks : list of anything
    dask : None for one after another in this process; a number of processes on this machine, one thread each; or the
        address of a scheduler, whose workers must see the same files under the same names

    Raises
    ------
    OptionError : no scheduler answers at the address
    MissingExtraError : without dask.distributed

    Examples
    --------
    >>> for task, result, problem in run_tasks(lambda n: 1 / n, [4, 0]):
    ...     print(task, result, problem)
    4 0.25
    0 None ZeroDivisionError: division by zero
    """
    if dask is None or not tasks:
        yield from ((task, *attempt(function, task)) for task in tasks)
        return
    distributed = require_extra("distributed", "scale")
    with _client(distributed, dask) as client:
        futures = {client.submit(attempt, function, task, pure=False): task for task in tasks}
        for future in distributed.as_completed(futures):
            if future.status == "finished":
                result, problem = future.result()
            else:  # its workers died, or the cluster gave it up
                reason = future.exception() if future.status == "error" else OSError("its cluster is gone")
                result, problem = None, _in_words(reason)
            yield futures.pop(future), result, problem


def attempt(function: Callable, task) -> tuple[Any, str]:
    """What a function returns, or None and what went wrong."""
    try:
        return function(task), ""
    except Exception as error:  # a damaged recording may raise anything
        return None, _in_words(error)


def _in_words(error):
    """An error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _client(distributed, dask):
    """A client of the scheduler at an address, or of new processes, which end with it."""
    if not isinstance(dask, str):
        require_int(1, dask=dask)
        return distributed.Client(n_workers=int(dask), threads_per_worker=1, dashboard_address=None)
    try:
        return distributed.Client(dask)
    except (OSError, ValueError) as error:
        hint = "start one with `dask scheduler`, or give a number of processes"
        raise OptionError(f"dask={dask!r}: no scheduler answers at this address ({error}); {hint}") from None
