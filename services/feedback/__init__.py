"""AI feedback: judges turn candidates into preference pairs and score predictions; reports measure their quality."""
