"""What a CI job asks: have the prompts changed, what does it mean, and tell the server."""
