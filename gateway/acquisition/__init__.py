"""From due polls to batches with time, scale and quality."""
