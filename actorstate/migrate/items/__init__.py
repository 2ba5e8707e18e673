"""Items from a source into a target, one by one: mapped, judged, written in batches, each counted exactly once.

    source ─ items ─▶ mapping ─▶ target.look ─▶ decided ─▶ plan saved ─▶ target.write ─▶ counted with its place
     shape.py        mapping.py                rules.py   └──────────── batch.py, course.py ────────────┘

Before a batch is written, the job has durably what is about to be written: an item that a crash left in the
target, uncounted, is known again by that and counts as succeeded, not as a duplicate. Outcomes are said in the
order of the source, each piece with the place behind it in the same commit.
"""
