"""Subscriptions: made, kept alive, taken up again after a loss, and what was missed meanwhile."""
