"""Contains what every HTTP server uses: middleware, protocol, limits, responses and streams."""
