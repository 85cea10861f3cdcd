"""Describes the feedback service's tables as they are now; a test compares them with what the migrations made."""

from sqlalchemy import MetaData

from services.chassis.executor.tables import attempt_table, work_table

metadata = MetaData()

attempt = attempt_table(metadata)
work = work_table(metadata)
