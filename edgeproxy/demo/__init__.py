"""`edgeproxy demo`: sandbox, proxy and a shop page on one machine, and their events narrated."""
