"""Getting and keeping a session with a server: endpoints, identity, certificates, and what its refusals mean."""
