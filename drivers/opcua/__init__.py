"""OPC UA: subscriptions, polls, writes, history and browsing, on the library's secure channel and session services."""
