"""Error codes: the seed names this file (L77) but does not show it.

The codes are those of its execution module (L299-316).
"""


def error_code(result):
    """The code of a transformer's result, or None for one that is no error."""
    if result.get("status") != "error":
        return None
    return result.get("error_code", "PROCESSING_ERROR")
