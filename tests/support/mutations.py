"""A seeded stream of damaged frames: bits, cuts, insertions, repetitions, splices, depth bombs, lies about lengths."""

from collections.abc import Callable, Iterator, Sequence
from random import Random

NESTING = [b"\x91", b"\x81\xa1k", b"\xdc\x00\x01", b"\x81\xa4body", b"\x93\x00\x00"]
LENGTHS = [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
LENGTHS += [
    b"\xdc\xff\xff",
    b"\xde\xff\xff",
    b"\xda\xff\xff",
    b"\xc9\x7f\xff\xff\xff\xff",
    b"\xde\0\0",
    b"\xdd\0\0\0\x01",
]
VALUES = [b"\xc0", b"\xc1", b"\xc2", b"\xcb\x7f\xf8" + b"\0" * 6, b"\xcb\x7f\xf0" + b"\0" * 6, b"\xcf" + b"\xff" * 8]
VALUES += [b"\xd3\x80" + b"\0" * 7, b"\xa0", b"\xd6\xff\0\0\0\0", b"\xc7\x0c\xff" + b"\xff" * 12]
VALUES += [b"\xd4\x05\x00", b"\xa1\xff", b"\x80"]


def flip(frame: bytes, random: Random) -> bytes:
    """One to three bits."""
    damaged = bytearray(frame)
    for _ in range(random.randrange(1, 4)):
        damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def retype(frame: bytes, random: Random) -> bytes:
    """One byte becomes another one."""
    place = random.randrange(len(frame))
    return frame[:place] + random.randbytes(1) + frame[place + 1 :]


def cut(frame: bytes, random: Random) -> bytes:
    return frame[: random.randrange(len(frame))]


def drop(frame: bytes, random: Random) -> bytes:
    place = random.randrange(len(frame))
    return frame[:place] + frame[place + random.randrange(1, 9) :]


def insert(frame: bytes, random: Random) -> bytes:
    place = random.randrange(len(frame) + 1)
    return frame[:place] + random.randbytes(random.randrange(1, 6)) + frame[place:]


def repeat(frame: bytes, random: Random) -> bytes:
    start = random.randrange(len(frame))
    end = start + random.randrange(1, 40)
    return frame[:end] + frame[start:end] * random.randrange(1, 4) + frame[end:]


def bomb(frame: bytes, random: Random) -> bytes:
    """Nesting, now and then deeper than any recursion."""
    place = random.randrange(len(frame) + 1)
    depth = 20_000 if random.random() < 0.001 else random.randrange(1, 40)
    return frame[:place] + random.choice(NESTING) * depth + frame[place:]


def lie(frame: bytes, random: Random) -> bytes:
    place = random.randrange(len(frame))
    return frame[:place] + random.choice(LENGTHS) + frame[place + 1 :]


def replace_value(frame: bytes, random: Random) -> bytes:
    place = random.randrange(len(frame))
    return frame[:place] + random.choice(VALUES) + frame[place + random.randrange(1, 4) :]


DAMAGES: Sequence[Callable[[bytes, Random], bytes]] = (
    flip, flip, flip, retype, cut, drop, insert, repeat, bomb, lie, replace_value,
)  # fmt: skip


def splice(one: bytes, other: bytes, random: Random) -> bytes:
    return one[: random.randrange(len(one) + 1)] + other[random.randrange(len(other)) :]


def damaged(frames: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged frames, the same for the same seed; some are damaged twice, some not at all."""
    random = Random(seed)
    for number in range(count):
        frame = frames[number % len(frames)]
        if number % 16 == 0:
            frame = splice(frame, random.choice(frames), random) or frame
        frame = random.choice(DAMAGES)(frame, random)
        yield random.choice(DAMAGES)(frame, random) if frame and number % 4 == 0 else frame
