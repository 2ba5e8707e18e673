"""The error tree. Every error says what happened, what was kept, and what to type next.

ActorStateError
├── RequestRefused            the writer answered; this request changed nothing
│   ├── BadRequest            the request itself is wrong
│   │   ├── BadJobId          an id outside [A-Za-z0-9][A-Za-z0-9._:-]{0,127}
│   │   ├── BadMessage        bytes that are no message of this protocol
│   │   └── TooLarge          a frame, value or list over its limit
│   ├── JobNotFound
│   ├── Conflict              the id is taken by a job of another kind, or the unique key by another job
│   ├── IllegalTransition     not possible in the job's present status
│   ├── JobFinished           the job is completed, failed or cancelled, and stays so
│   ├── Fenced                this worker was replaced or has detached
│   ├── AlreadyAttached       exclusive attach while another worker lives
│   ├── AlreadyTracked        the track name is in use by a live worker
│   ├── Busy                  a bound was reached; retry after `retry_after_s`
│   ├── HistoryPruned         so old a state is not kept any more; `oldest` is
│   ├── ActorFailed           an unexpected error in this one actor; it was reloaded
│   └── JobParked             the actor failed repeatedly; the job waits for a person
├── OutcomeUnknown            sent, but no answer tells whether it was applied
├── WriterUnavailable         no writer answered; a change was not sent, a read has no answer
├── StaleMirror               a local copy is older than its reader takes
├── RunClosed                 the run's block was left, or belongs to another process
├── NotApproved               nobody has answered a worker's question in time; it stays open
├── JobCancelled              raised inside a worker's block; swallowed where the block ends
├── MigrationError            moving data; each error says what was kept
│   ├── SourceUnreadable      the source cannot be read as what it should be
│   ├── TargetFailed          the target refused or does not answer; what it has confirmed stands
│   ├── ItemRefused           one item cannot be taken, and of which category that is
│   ├── MigrationRunning      another run holds the folder of the users
│   ├── UserRefused           this user cannot be migrated as he is; nothing of his was changed
│   │   └── DatabaseInUse     his database is open in other processes
│   ├── VerificationFailed    a copy does not say what its original says; it was not used
│   └── NeedsAttention        no way forward or back is safe; nothing more is touched
└── StoreError
    ├── DiskFull              refused; nothing half-written; reads go on
    ├── StoreFailed           the disk failed; the writer exits and recovers at its next start
    ├── CorruptJob            a digest does not match; the damaged rows are kept
    │   └── ForeignEdit       the file was edited by hand or by another program
    ├── OtherStore            the directory holds the other kind of store
    ├── CorruptItem           items of a job's ledger are damaged; all others can be read
    ├── StoreTooNew           written by a later release
    ├── NotOwner              the directory is another user's, whom our files would lock out
    ├── EpochFenced           another writer has taken the directory over
    └── WriterRunning         the directory already has a writer
"""

import shlex
from typing import ClassVar

type_by_code: dict[str, "type[ActorStateError]"] = {}

Detail = str | int | float | bool | None


class ActorStateError(Exception):
    """Root of the tree: `code` for machines, the message and `hint` for people.

    `retryable` says whether the same call may succeed later without a change by the caller.
    `details` are the values of one case (a holder, a limit), and attributes of the error too.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str = "", **details: Detail) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint or self.default_hint.format_map(_Blanks(details))

    def __init_subclass__(cls) -> None:
        type_by_code[cls.code] = cls

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __getattr__(self, name: str) -> Detail:
        details: dict[str, Detail] = self.__dict__.get("details", {})
        if name in details:
            return details[name]
        raise AttributeError(name)

    def __reduce__(self) -> "tuple[object, ...]":
        return from_wire, (self.code, self.message, self.hint, self.details)


class _Blanks(dict[str, Detail]):
    """What a hint names, as a shell takes it; what is not known stands for itself, in capitals."""

    def __getitem__(self, key: str) -> Detail:
        found = self.get(key, key.upper())
        return shlex.quote(found) if isinstance(found, str) else found


def from_wire(code: str, message: str, hint: str, details: dict[str, Detail]) -> ActorStateError:
    """The error a writer of any release meant; an unknown code becomes `RequestRefused`."""
    error = type_by_code.get(code, RequestRefused)(message, hint=hint)
    error.details = details
    return error


class RequestRefused(ActorStateError):
    """The writer answered, and this request changed nothing."""

    code = "refused"


class BadRequest(RequestRefused):
    """The request itself is wrong; sending it again will not help."""

    code = "bad_request"


class BadJobId(BadRequest):
    """A job id is 1 to 128 of letters, digits, `.`, `_`, `:` and `-`, beginning with a letter or digit."""

    code = "bad_job_id"
    default_hint = "use letters, digits, '.', '_', ':' and '-' only, at most 128, beginning with a letter or digit"


class BadMessage(BadRequest):
    """Bytes that are no message of this protocol."""

    code = "bad_message"
    default_hint = "use a client of the same release as the writer; see: actorstate doctor DIR"


class TooLarge(BadRequest):
    """A frame, value or list is over its limit."""

    code = "too_large"
    default_hint = "keep large data in a file or table of your own and save its name here"


class JobNotFound(RequestRefused):
    """No job has this id in this directory."""

    code = "job_not_found"
    default_hint = "list the jobs there are: actorstate jobs DIR"


class Conflict(RequestRefused):
    """The id is taken by a job of another kind, or another job holds the unique key."""

    code = "conflict"
    default_hint = "choose another id, or look at the holder: actorstate get DIR {job}"


class IllegalTransition(RequestRefused):
    """The job's present status does not allow this."""

    code = "illegal_transition"
    default_hint = "look at its status: actorstate get DIR {job}"


class JobFinished(RequestRefused):
    """The job is completed, failed or cancelled; terminal states are latched."""

    code = "job_finished"
    default_hint = "look at its end: actorstate get DIR {job}"


class Fenced(RequestRefused):
    """This worker was replaced or has detached; a fenced run never re-attaches by itself."""

    code = "fenced"
    default_hint = "end this worker; to work on, attach again"


class AlreadyAttached(RequestRefused):
    """Exclusive attach was refused because `holder` is attached and not dead."""

    code = "already_attached"
    default_hint = "wait for it, or end it; to fence it off, attach with take_over=True"


class AlreadyTracked(RequestRefused):
    """The track name is in use by a live worker."""

    code = "already_tracked"
    default_hint = "give each worker a track name of its own: job.track(rows, name=...)"


class Busy(RequestRefused):
    """A bound was reached and nothing was changed; retry after `retry_after_s` seconds."""

    code = "busy"
    retryable = True
    default_hint = "retry a little later; clients do so by themselves within their deadline"


class HistoryPruned(RequestRefused):
    """So old a state of the job is not kept any more: its history begins at revision `oldest`."""

    code = "history_pruned"
    default_hint = "look at the oldest that there is: actorstate get DIR {job} --at {oldest}"


class ActorFailed(RequestRefused):
    """An unexpected error in this job's actor; it was reloaded from the store and other jobs went on."""

    code = "actor_failed"
    default_hint = "the job is as it was; see the writer's log for the traceback"


class JobParked(RequestRefused):
    """The job's actor failed repeatedly; changes are refused until the writer is started again, reads go on."""

    code = "job_parked"
    default_hint = "read the traceback in the writer's log, then start the writer again"


class OutcomeUnknown(ActorStateError):
    """The request was sent and no answer tells whether it was applied; past its deadline it will not be."""

    code = "outcome_unknown"
    default_hint = "look before you repeat it: actorstate get DIR {job}"


class WriterUnavailable(ActorStateError):
    """No writer answered within the deadline; nothing was changed by this call."""

    code = "writer_unavailable"
    retryable = True
    default_hint = "start it: actorstate serve {directory}; if it should be running: actorstate doctor {directory}"


class StaleMirror(ActorStateError):
    """The mirror is older than the limit of `age_s`, or the job not as far as asked; it catches up by itself."""

    code = "stale_mirror"
    retryable = True
    default_hint = (
        "see whether its writer lives: actorstate doctor {directory}; to read it as it is: get(..., max_age_s=math.inf)"
    )


class RunClosed(ActorStateError):
    """The run's block was left, or it was opened by another process."""

    code = "run_closed"
    default_hint = "attach in the process that does the work: with client.attach(JOB) as job: ..."


class NotApproved(ActorStateError):
    """Nobody has answered a worker's question in the time that it gave them; the question stays open."""

    code = "not_approved"
    default_hint = "answer it, then start the worker again: actorstate approve DIR {job}"


class JobCancelled(ActorStateError):
    """Somebody cancelled the job; raised at a row boundary, after saving, and swallowed by the block."""

    code = "job_cancelled"


class MigrationError(ActorStateError):
    """Something about the migration of data."""

    code = "migration_error"


class SourceUnreadable(MigrationError):
    """The source cannot be read as what it should be; nothing was written to it."""

    code = "source_unreadable"
    default_hint = "name a source of the right kind that this user may read"


class TargetFailed(MigrationError):
    """The target refused what was put into it, or does not answer; what it has confirmed stands."""

    code = "target_failed"
    default_hint = "see what the message says about the target, mend it, and start again"


class ItemRefused(MigrationError):
    """One item cannot be taken: `category` says why, `retry_after_s` after how long a limit allows it again."""

    code = "item_refused"
    default_hint = "mend the item or the mapping, then run it again with --retry {category}"


class MigrationRunning(MigrationError):
    """Another run holds the folder of the users; two at once would be in each other's way."""

    code = "migration_running"
    retryable = True
    default_hint = "wait until it has ended; how far it is: actorstate migrate status profiles {directory}"


class UserRefused(MigrationError):
    """This user cannot be migrated as he is; nothing of his was changed."""

    code = "user_refused"
    default_hint = "mend what the message says, then run it again; see the plan: actorstate migrate plan profiles DIR"


class DatabaseInUse(UserRefused):
    """The user's database is open in other processes (`pids`); nothing of his was changed."""

    code = "database_in_use"
    retryable = True
    default_hint = "end these processes, then run it again; see the plan: actorstate migrate plan profiles DIR"


class VerificationFailed(MigrationError):
    """A copy does not say what its original says; the copy was not used."""

    code = "verification_failed"
    default_hint = "check the disk (dmesg), then see: actorstate migrate verify profiles DIR"


class NeedsAttention(MigrationError):
    """No way forward or back is safe; nothing more is touched until somebody has looked."""

    code = "needs_attention"
    default_hint = "see where each copy lies: actorstate migrate status profiles DIR"


class StoreError(ActorStateError):
    """Something is wrong with what lies on the disk, or with the disk."""

    code = "store_error"


class DiskFull(StoreError):
    """The disk is full: the change was refused, nothing is half-written, reads go on."""

    code = "disk_full"
    retryable = True
    default_hint = "free some space and repeat the call; the writer needs no restart"


class StoreFailed(StoreError):
    """The disk failed under a write. The writer exits: what only the cache has seen is not trusted."""

    code = "store_failed"
    default_hint = "check the disk (dmesg), then start the writer again: it recovers by itself"


class CorruptJob(StoreError):
    """Stored bytes do not match their digest; the damaged rows are kept as they are."""

    code = "corrupt_job"
    default_hint = "keep a copy of the directory, then see what is damaged: actorstate verify DIR"


class ForeignEdit(CorruptJob):
    """The job's file is whole, but somebody else wrote it; it is left alone until it is adopted."""

    code = "foreign_edit"
    default_hint = "look at the file; to take it as it is, end the writer, then: actorstate repair DIR --adopt"


class OtherStore(StoreError):
    """The directory holds another kind of store than was named; it was not touched."""

    code = "other_store"
    default_hint = "name it as it is: {location}"


class CorruptItem(StoreError):
    """Items of a job's ledger do not match their digest; told once all the others were handed out."""

    code = "corrupt_item"
    default_hint = "the job and its other items are whole; an outcome said anew replaces a damaged item"


class StoreTooNew(StoreError):
    """The directory was written by a later release; it was not touched."""

    code = "store_too_new"
    default_hint = "install the release that wrote it: pip install --upgrade actorstate"


class NotOwner(StoreError):
    """The directory belongs to another user: files of this one in it would lock that one out. It was not touched."""

    code = "not_owner"
    default_hint = "type the same as its owner: sudo -u {owner} actorstate serve {directory}"


class EpochFenced(StoreError):
    """Another writer has taken the directory over; this one wrote nothing and must exit."""

    code = "epoch_fenced"
    default_hint = "nothing to do: the newer writer serves"


class WriterRunning(StoreError):
    """The directory already has a writer; there is never a second one."""

    code = "writer_running"
    default_hint = (
        "use it as it is; to end it: kill {pid}; to replace it, even if it hangs: actorstate serve DIR --take-over"
    )
