"""The only outbound HTTP: each provider makes one attempt at one model and says what came of it.

`base` is the interface, `registry.build_provider` builds by kind. Providers are imported only when built.
"""
