"""The services, how they are built (`chassis`) and how they are started (`cli`).

Every process of the project imports this package first, so the libraries are told here that they may report nothing.
"""

import os

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
"""Is read by the libraries of Hugging Face: none of them reports what is trained, judged or asked here."""
