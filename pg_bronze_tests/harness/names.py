"""Names that PostgreSQL allows, and something between it and the lake might not, or might take for another name."""

import unicodedata

EMOJI, FAMILY, ARABIC = "🎬", "👩\u200d👧", "فيلم"  # the second is one sign of three characters
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "película") for form in ("NFC", "NFD"))

# Each looks like another one of these somewhere: in a URL, a pattern, an asset key, a file system, to the eye.
TABLE_NAMES = (
    *("movie", "Movie", " movie", "movie ", " ", "my movie", "my+movie", "my_movie", "my-movie", "my__movie", "_movie"),
    *("_", ".", "..", "a.b", "a/b", "../a", "a\\b", "a%2Fb", "%", "%(x)s", "{c}", "$1", "a:b", "a?b#c", "a,b", "[a]*"),
    *("a*", "[a]", "a?", "a#", "a&"),
    *("'a'", '"a"', '"', "--a", "a\nb", "\x01", "a\ufffeb", COMPOSED, DECOMPOSED, EMOJI, FAMILY, f"\u202e{ARABIC}"),
    *("select", "public", "1st", "date=2026-01-01", "_pg_bronze", "movie_20260102000010", "movie.parquet"),
    *("m" * 63, "." * 63, EMOJI * 15 + "abc", EMOJI * 15 + "abd"),
)
TABLES = (
    *(("public", name) for name in TABLE_NAMES),
    # Each beside a table of public that looks like it, or together too long for the name of a folder or an etl_control.
    *(("a", "b"), ("a.b", "c"), ("a", "b.c"), ("my", "movie"), ("_pg_bronze", "movie"), ("/" * 63, "/" * 63)),
    *(('"' * 63, '"' * 63), ('"' * 62 + "x", '"' * 63)),
)

COLUMN_NAMES = (
    *("a", "A", "_pg_xid", "_pg_xid_1", "t", "row", "at", "length", "part", "len", "value", "literal", "id", "oid"),
    *("*", "^a$", "^.*$", "^a", " ", " a", "a ", "a.b", "a/b", "a\\b", "a\nb", "a\tb", "\x01", "%", "%s", "%(x)s"),
    *("{}", "{0}", "{c}", "{a", "$1", "$$", ":a", "?", "--", "/*", ";", '"', '""', "'", "'a'", "`", "[a]", "(a)"),
    *("a,b", "select", "from", "null", "__index_level_0__", COMPOSED, DECOMPOSED, EMOJI, FAMILY, ARABIC, "\U0010ffff"),
    *("a\ufffeb", "m" * 63, '"' * 63, EMOJI * 15 + "abc", "映" * 21),
)
