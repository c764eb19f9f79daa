"""Stand-ins for what a run must not depend on: an embedding API, a mail server, chat webhooks. Each keeps a true log."""
