"""Starts a thread where it is imported, so that the process cannot be forked."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
