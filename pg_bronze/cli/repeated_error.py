"""A repeated error: one line per cause for a command that retries every few seconds. No I/O, no clock."""

from dataclasses import dataclass

from pg_bronze.core.load_progress import duration

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0


@dataclass
class RepeatedError:
    """The error of all batches since the last one that worked.

    Attributes:
        sentence: The error; empty if the last batch worked.
        since: When it was raised first, in seconds since any moment.
        silent_until: It is not printed again before.
        pause_s: The seconds until then, which grow.
    """

    sentence: str = ""
    since: float = 0.0
    silent_until: float = 0.0
    pause_s: float = FIRST_PAUSE_S

    def after_error(self, sentence: str, now: float) -> str | None:
        """Return what to print after a batch that failed; None for nothing."""
        if sentence != self.sentence:
            self.since = now if not self.sentence else self.since
            self.sentence, self.pause_s, self.silent_until = sentence, FIRST_PAUSE_S, now + FIRST_PAUSE_S
            return sentence
        if now < self.silent_until:
            return None
        self.pause_s = min(LONGEST_PAUSE_S, 2 * self.pause_s)
        self.silent_until = now + self.pause_s
        return f"still failing, for {duration(now - self.since)}: {sentence}"

    def after_success(self, now: float) -> str | None:
        """Return what to print after a batch that worked; None for nothing."""
        if not self.sentence:
            return None
        self.sentence = ""
        return f"recovered after {duration(now - self.since)}"
