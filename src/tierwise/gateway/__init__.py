"""The gateway: tools that can set a base URL are routed, checked and recorded, unchanged.

`app` is the ASGI application: paths, access, errors. `incoming` reads a request, `planning` decides where it goes,
`run` carries a call out, `records` writes it down. `conversations` and `admission` remember what calls share,
`accounts` which keys of a provider are usable.

With several workers, `supervisor` starts processes that `worker` is the life of. What their calls share is kept at the
supervisor by `commons`, and asked for by `shared`, over a `line`.
"""
