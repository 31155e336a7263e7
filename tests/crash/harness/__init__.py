"""What the scenarios are made of: a proxy process, senders before it, a server behind it, a ledger
of what each of them saw, and the oracle that compares.

`world.World` puts them together; a scenario is a test that says what goes wrong meanwhile.
"""
