"""The two ways in which the harness gives up, each with the exit status that the command line turns it into."""


class BadInput(Exception):
    """The person's input is at fault (exit status 4). The message: what was expected, what came, what to do."""


class HarnessFailure(Exception):
    """The harness could not do its work (exit status 3). The message says which step failed and what to look at."""


class Interrupted(BaseException):
    """The person (SIGINT) or the machine (SIGTERM) asked to stop. No Exception, so that nothing swallows it."""
