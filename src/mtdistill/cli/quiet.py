"""Keeps the progress bars, the advice and the echoes of other libraries out of our screens."""

import threading


def quiet_libraries() -> None:
    """No progress bars, advice and tracebacks of other libraries between ours."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    threading.excepthook = _without_echo


def _without_echo(failed: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread hands an error to the next write as well, where it is told in a sentence."""
    if not type(failed.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(failed)
