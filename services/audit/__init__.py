"""Answers auditors' questions from the log: event histories, traces of models, exports, inclusion proofs, past states."""
