"""What can be said on the wire, and its specification.

One request is one msgpack map in one ZeroMQ frame; a reply frame is an array of such maps, because the
writer answers a client once a commit. `requests` and `replies` define them, `document` is the job as
readers see it, `payload` is the user's own data, opaque to the writer.

Order of business: a client numbers its changes (`id`, from 1, per process life `producer`), tells with
each one below which number all are answered (`acked`), and resends the same body under the same number
until it is answered. Reads and heartbeats carry no producer and are never recorded.
"""
