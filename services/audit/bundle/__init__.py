"""The evidence of one version as a folder that anybody can verify offline: records of the log, and documents derived from them."""
