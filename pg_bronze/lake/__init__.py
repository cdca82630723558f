"""The lake: the bucket, its keys, footers and claims, the commit protocol, and reading the result.

Everything that lists, reads or writes objects belongs here; access to the source database does not. ``lake.commit``
receives frames with a claim and a footer, and returns what was committed as a plain value.
"""
