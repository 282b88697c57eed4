"""A second, plain implementation of docs/semantics.md, to compare the evaluator with.

It is slow on purpose: it keeps every event, judges every window by looking at its events again, and takes
every step of every streak. Sections 1-8 and 13, without maintenance, `confidence`, run groups, absence and
burn rates.
"""
