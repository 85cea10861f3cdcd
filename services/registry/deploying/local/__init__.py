"""The driver `local`: one supervised process for each base model, on this machine, that serves it and its adapters."""
