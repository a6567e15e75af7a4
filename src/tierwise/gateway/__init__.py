"""The gateway: tools that can set a base URL are routed, checked and recorded, unchanged.

`app` is the ASGI application: paths, access, errors. `incoming` reads a request, `planning` decides where it goes,
`run` carries a call out, `records` writes it down. `conversations` and `admission` remember what calls share.
"""
