"""SQLite databases of users: read exactly as they are, and written so that a repeated row changes nothing.

    user's database ── snapshot ──▶ a copy of our own ── SqliteSource ──▶ items ──▶ SqliteTarget ──▶ new database
         whole.py                                           rows.py                   rows.py

- A source is only ever opened for reading. `snapshot` takes it at one moment, with what a live `-wal` or
  a crashed process's journal holds, so several processes read the same rows while its owner goes on.
- Rows go over exactly: text as bytes with its type kept, integers apart from reals, hidden rowids too.
- A new database gets its tables first and its indexes, views and triggers when all rows are there
  (`create_target`, `finish_target`): no trigger fires for a row that is only moved.
- Foreign keys and CHECK constraints are not judged: a row that the source has is a row to copy.
"""
