#!lua
-- Takes a place in each of some sets, if each has one left, and some tokens are left: all or nothing. A place is given
-- back with ZREM, or by itself when its time is over. Repeating it with the same name takes nothing more.
--
-- KEYS  the sets (member -> when its place is free again), and where tokens are counted, their count
-- ARGV  name of the place, then for each key its limit and how long a place is taken, in ms (0: a count of tokens)
-- Returns {1 = taken, 0 = not, and for each key how many are left and ms until there are more (-1: never)}
local name = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = {1}
for i, key in ipairs(KEYS) do
    local limit, ms = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    local left, free
    if ms == 0 then
        left = limit - tonumber(redis.call('GET', key) or 0)
        free = redis.call('PTTL', key)
    else
        redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
        left = limit - redis.call('ZCARD', key)
        if redis.call('ZSCORE', key, name) then left = left + 1 end
        local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
        free = (first[2] or now + ms) - now
    end
    if left <= 0 then reply[1] = 0 end
    reply[2 * i], reply[2 * i + 1] = left, free
end
if reply[1] == 1 then
    for i, key in ipairs(KEYS) do
        local ms = tonumber(ARGV[2 * i + 1])
        if ms > 0 then
            redis.call('ZADD', key, now + ms, name)
            redis.call('PEXPIRE', key, ms)
            reply[2 * i] = reply[2 * i] - 1
        end
    end
end
return reply
