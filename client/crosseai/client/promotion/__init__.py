"""Moving a registered version to the servers, and back, with no request lost and nothing unrecorded."""
