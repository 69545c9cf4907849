#!lua
-- Counts the tokens of an answer that has ended, once, however often it is sent.
--
-- KEYS  the count, the mark that this answer is counted
-- ARGV  tokens, when the count begins anew (Unix time in ms), how long the mark stays in ms
if redis.call('SET', KEYS[2], '', 'NX', 'PX', ARGV[3]) then
    redis.call('INCRBY', KEYS[1], ARGV[1])
    redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
