"""tierwise inside other libraries: SDKs, frameworks, agent loops. Nothing here is imported before it is used.

A host library is never imported by importing tierwise; where one is missing, the error says how to install it.
"""
