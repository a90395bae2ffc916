"""Keeps the progress bars and the advice of other libraries out of our screens."""


def quiet_libraries() -> None:
    """No progress bars and advice of other libraries between ours."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
