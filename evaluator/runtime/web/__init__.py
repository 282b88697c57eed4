"""The status page, the API, and the endpoints of a daemon."""
