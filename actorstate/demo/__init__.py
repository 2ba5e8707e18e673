"""`actorstate demo`: a real migration under eight readers, whose writer is killed twice, and the count afterwards."""
