"""Nodes of a server: addresses into node ids, patterns into tags, and the tree as people browse it."""
