from dataclasses import replace

import dagster as dg
import pytest

from pg_bronze.core.leaf import Leaf
from pg_bronze.core.watermark import Origin, Watermark
from pg_bronze.defs import metadata
from pg_bronze.defs.metadata import (
    GENERATION,
    PROGRESS,
    QUIET_UPTO,
    WATERMARK,
    of_progress,
    of_quiet,
    of_watermark,
    progress_of,
    quiet_upto,
    watermark_of,
)
from pg_bronze.defs.table_facts import Process
from pg_bronze.errors import LakeDamaged

MARK = Watermark(Origin("7", 1, "0/1", 5, "bronze"), 9, seq=3, key="movie/x").with_leaves({9: Leaf(91377)})


def event(metadata):
    """Return the attribute of an event that is read."""

    class Event:
        asset_materialization = dg.AssetMaterialization("movie", metadata=metadata)

    return Event()


def test_a_watermark_is_read_back_from_its_materialization():
    assert watermark_of(event(of_watermark(MARK))) == MARK


def test_a_watermark_that_an_older_version_stored_as_json_is_read():
    """Otherwise every table would be recovered from footers after an upgrade."""
    older = {WATERMARK: dg.MetadataValue.json(MARK.to_json())}
    assert watermark_of(event(older)) == MARK
    assert progress_of(dg.AssetObservation("movie", metadata={PROGRESS: older[WATERMARK]})) == MARK
    assert progress_of(dg.AssetObservation("movie", metadata=of_progress(MARK))) == MARK


def test_a_process_parses_a_watermark_once_for_each_materialization(monkeypatch: pytest.MonkeyPatch):
    """Each tick would otherwise parse those of all tables: a sixth of its CPU time."""
    parsed, process, key = [], Process(), dg.AssetKey("movie")
    parse = metadata.watermark_in
    monkeypatch.setattr(metadata, "watermark_in", lambda key, values: parsed.append(key) or parse(key, values))
    later = replace(MARK, seq=4)

    marks = [MARK, MARK, later, later, None, None]
    read = [process.read_watermark(key, of_watermark(mark) if mark else {}) for mark in marks]

    assert read == marks
    assert len(parsed) == 3
    assert process.read_watermark(key, {WATERMARK: "{damaged"}) is None


def test_an_event_without_a_watermark_returns_none():
    """After a manual report or a wipe, the state is read from the newest footer."""
    assert watermark_of(None) is None
    assert watermark_of(event({})) is None
    assert watermark_of(event({WATERMARK: "by hand"})) is None


def test_a_damaged_watermark_is_an_error_and_not_ignored():
    with pytest.raises(LakeDamaged, match=r"^movie: its last .* Wipe the materializations of the asset"):
        watermark_of(event({WATERMARK: dg.MetadataValue.json({"format": 1})}))
    with pytest.raises(LakeDamaged, match=r"^movie: its last .* Wipe the materializations of the asset"):
        watermark_of(event({WATERMARK: '{"format": 3'}))


def test_an_observation_contains_generation_and_transaction_of_a_quiet_read():
    seen = dg.AssetObservation("movie", metadata=of_quiet("no row", 91377, 2))
    assert quiet_upto(seen) == (2, 91377)
    older = dg.AssetObservation("movie", metadata={GENERATION: 2, QUIET_UPTO: 91377})
    assert quiet_upto(older) == (2, 91377)
    assert quiet_upto(dg.AssetObservation("movie", metadata=of_quiet("no row", 91377, -1))) == (-1, 91377)


@pytest.mark.parametrize("metadata", [{}, {QUIET_UPTO: 5}, {GENERATION: 1}, {GENERATION: "x", QUIET_UPTO: "5"}])
def test_an_observation_without_both_is_ignored(metadata):
    assert quiet_upto(dg.AssetObservation("movie", metadata=metadata)) == (-1, 0)
    assert quiet_upto(None) == (-1, 0)
