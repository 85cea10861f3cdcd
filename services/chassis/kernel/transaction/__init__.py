"""One transaction: what is locked, folded, decided and written together."""
