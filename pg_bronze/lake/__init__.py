"""The lake: the bucket, the keys, footers, claims and the commit protocol, and reading the result.

Belongs here: everything that lists, reads or writes objects. Does not belong here: the source database. Frames come in
with a claim and a footer; what was committed goes out as a plain value.
"""
