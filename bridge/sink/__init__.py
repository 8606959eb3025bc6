"""MOOST's language: effects become calls, answers become outcomes.

Rooms: `encode` what is sent, `validate` the last check before it, `classify` what an answer means, `token` the
credentials, `client` the wire, `causes` what its exceptions mean. Only the last two know the library.
"""
