"""Answers who saw a row: finds it in the indexes of data sets, and the trainings that used it in their ledgers."""
