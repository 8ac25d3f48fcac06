"""``dynamo-planner profile``: measure an engine, and show, compare and merge profiles.

- ``measure``: what ``dynamo-planner profile URL`` does; ``session_files`` keeps what was measured.
- ``group``: makes a URL the command ``measure``.
"""
