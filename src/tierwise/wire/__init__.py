"""The wire, sans-io: bytes and dicts in, values out.

`sse` cuts a byte stream into events, `sieve` only into those that matter; `tap` watches a stream that flows by and
`endings` ends one that broke; `anthropic` folds a Messages stream into one message and reads its usage;
`openai` translates to and from chat/completions for upstreams, `chat` for clients; `adapt` changes a request into what
its target model accepts, and `splice` single values of its bytes.
Nothing here opens a socket, so everything here can be tested at every byte.
"""
