"""Compression: the levels of the Parquet codecs."""

from pg_bronze.settings.choices import Compression

_LEVELS: dict[str, tuple[int, int]] = {"zstd": (1, 22), "gzip": (0, 9)}


def check_level(codec: Compression, level: int) -> None:
    """Check that a codec has a level.

    Raises:
        ValueError: It has not.
    """
    if codec not in _LEVELS:
        raise ValueError(f"{codec} has no levels; remove it")
    low, high = _LEVELS[codec]
    if not low <= level <= high:
        raise ValueError(f"for {codec} it must be {low} to {high}")
