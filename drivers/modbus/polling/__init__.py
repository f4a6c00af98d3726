"""Which requests read which tags, what a read brings, and what is learned of the device meanwhile."""
