"""Exit statuses, for scripts.

0    fine
1    the answer is no: no such job, the watched job failed, doctor found something
2    the command line itself is wrong
3    no writer answered
4    refused with a typed error, which says what was kept and what to type next
70   a defect of ours; the traceback is on standard error
130  interrupted by Ctrl-C
141  the reader of our output went away
"""

FINE = 0
NO = 1
USAGE = 2
NO_WRITER = 3
REFUSED = 4
DEFECT = 70
INTERRUPTED = 130
CLOSED = 141
