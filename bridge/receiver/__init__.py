"""The front door: checks the caller, stores the bytes, and only then says 202.

Rooms: `app` the addresses, `door` the way of one request, `checks` what is asked before and after the body is read,
`intake` the body and its messages, `gate` whether the door is open, `health` and `operator` what people may know,
`protocol` and `server` the limits of a connection.
"""
