"""Why a slot is not served: for good, or until its process or its server answers again."""


class Refused(Exception):
    """A target cannot be served as it is; `reason` is one of the words of `Observed`, the message has the remedy."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class Died(Exception):
    """The process of a target ended, or was ended because it did not answer; it is started again."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class Away(Exception):
    """What serves a target elsewhere cannot be reached or does not answer as it should; the driver tries again by itself."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message
