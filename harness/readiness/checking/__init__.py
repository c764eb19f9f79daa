"""What stands behind the pytest plugin: recording, outcomes, waiting, the ingested corpus. Checks import
from its modules.
"""
