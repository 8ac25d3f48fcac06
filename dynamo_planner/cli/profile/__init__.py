"""``dynamo-planner profile``: measure an engine, and show, compare and merge profiles.

- ``measure``: the options of ``dynamo-planner profile URL``; ``live`` does it, ``screen`` shows how far it is, and
  ``session_files`` keeps what was measured.
- ``verify``: checks a profile against its engine; ``endpoint`` has the options that it shares with ``measure``.
- ``files``: ``show``, ``compare`` and ``merge``.
- ``group``: makes a URL the command ``measure``.
"""
