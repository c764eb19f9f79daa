"""Stand-ins for what a run must not depend on: embedding API, mail server, chat. Each keeps a true log."""
