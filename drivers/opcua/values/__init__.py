"""Values on the wire, into Python and back: the fast parser, structures, qualities."""
