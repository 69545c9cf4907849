#!lua flags=allow-oom
-- Leaves the stop mark for the runner of an answer.
--
-- KEYS  chat
-- ARGV  number
-- Returns 1, or 0 where that answer does not run
if redis.call('HGET', KEYS[1], 'active') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'stop', ARGV[1])
return 1
