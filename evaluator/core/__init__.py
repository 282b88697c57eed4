"""The pure core: events in, transitions out. No clock, file, socket, JSON, log or metric is known here."""
