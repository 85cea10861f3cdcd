"""The compacted topic `neuroweaver.models.latest`: how each model is now."""
