"""The way of one record: from the log through one transaction to the rows, the outbox and the log again."""
