"""AI feedback: judges turn candidates into preference pairs and score predictions; what they are worth is measured."""
