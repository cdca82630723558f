"""Stops: the object that keeps a table stopped after its database was found in an older state.

The evidence of a restore disappears when the database has written past the position of the watermark. Without this
object the table would then be copied again, although rows below its watermark are missing. It is among the claims, so
that recovery finds it without another request. It holds for one watermark: reset, continue and reconcile end it.

A writer that does not recover by listings finds it too: the number of the next object is claimed, so that its own claim
fails. Nobody redoes that claim while the table is stopped, and the change that ends the stop takes its number.
"""

import dataclasses
import json
import secrets
from datetime import datetime

from pg_bronze.core.formats import FORMAT, check_format
from pg_bronze.core.watermark import Watermark
from pg_bronze.lake.claim import Claim, load_object
from pg_bronze.lake.keys import Layout, next_time
from pg_bronze.lake.object_store import Store


def write(store: Store, layout: Layout, watermark: Watermark, reason: str, now: datetime) -> None:
    """Stop a table at a watermark; ``reason`` is the message of the error."""
    key = layout.key(next_time(now, layout.time(watermark.key)), layout.next_style(watermark))
    after = dataclasses.replace(watermark, seq=watermark.seq + 1, key=key)
    claim = Claim(secrets.token_hex(8), watermark, after, None, {}, "the table is stopped")
    # The claim first. If the process ends before the second write, the evidence is compared again before a redo.
    store.create(layout.claim(after.seq), claim.to_text().encode())
    body = {"format": FORMAT, "seq": watermark.seq, "key": watermark.key, "reason": reason}
    store.replace(layout.stop, json.dumps(body).encode())


def read(store: Store, layout: Layout, watermark: Watermark | None) -> str | None:
    """Return why a table is stopped at a watermark; None, and delete the object, if it holds for an earlier one.

    Raises:
        FormatTooNew: A newer pg_bronze wrote it.
        LakeDamaged: It is not a stop.
    """
    text = store.get(layout.stop)
    if text is None:
        return None
    found = load_object(text, layout.stop)
    check_format({"format": FORMAT, **found}, f"the stop {layout.stop}")  # the first ones had no number
    if watermark is not None and (found.get("seq"), found.get("key")) == (watermark.seq, watermark.key):
        return str(found.get("reason"))
    store.delete(layout.stop)
    return None
