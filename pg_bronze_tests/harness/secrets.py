"""The forms in which a secret could appear in a text."""

from urllib.parse import quote, quote_plus


def spellings(secret: str) -> set[str]:
    escaped = secret.encode("unicode_escape").decode()
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret), secret.replace("'", "\\'")}
    return {secret, escaped, repr(secret)[1:-1], *quoted}
