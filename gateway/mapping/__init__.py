"""From the user's mapping files to checked devices, tags and groups."""
