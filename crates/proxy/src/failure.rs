//! Step 11 of walk one: what can go wrong, and what it means to the client, the log and the retry decision.
