#!lua flags=allow-oom
-- Says how many streams of an owner a process has, and asks whether there may be one more. What a process has said holds
-- for a while only, so that one that was killed is forgotten.
--
-- KEYS  the owner's readers (process -> count and until when)
-- ARGV  process, its streams with the new one, limit (0: only say), how long it holds in ms
-- Returns {1 = it is so, 0 = too many: nothing was changed, streams of all processes with the new one}
local key = KEYS[1]
local process, count, limit, ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local total = count
local said = redis.call('HGETALL', key)
for i = 1, #said, 2 do
    local streams, till = string.match(said[i + 1], '^(%d+) (%d+)$')
    if tonumber(till) <= now then
        redis.call('HDEL', key, said[i])
    elseif said[i] ~= process then
        total = total + tonumber(streams)
    end
end
if limit > 0 and total > limit then return {0, total} end
if count == 0 then
    redis.call('HDEL', key, process)
else
    redis.call('HSET', key, process, string.format('%d %d', count, now + ms))
    redis.call('PEXPIRE', key, ms)
end
return {1, total}
