"""The second way in: reads the device cloud's Kafka, stores the records, and only then commits their offsets.

Rooms: `room` all subscriptions side by side, `feed` the way of one of them, `records` from records to arrivals,
`thread` where the client may block.
"""
