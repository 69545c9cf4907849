#!lua flags=no-writes
-- Reads an answer's event log to its top, with what is needed to end it.
--
-- KEYS  messages, events, lease
-- ARGV  number
-- Returns {entries, 1 = somebody has the lease, the answer's record (nil = no such message)}
local messages, events, lease = unpack(KEYS)
return {redis.call('XRANGE', events, '-', '+'), redis.call('EXISTS', lease), redis.call('HGET', messages, ARGV[1])}
