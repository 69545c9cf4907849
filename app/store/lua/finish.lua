#!lua flags=allow-oom
-- Ends an answer: appends what is left of it and `end`, as one entry, right behind the entry that the caller knows as the
-- log's last, stores the message, frees the conversation, and sets the log's lifetime. Refused where the log's top is
-- another entry: somebody else ended it, or it still grows. Allowed when memory is full, so that a full store can still
-- end an answer.
--
-- KEYS  chat, messages, events, lease
-- ARGV  number, id of the last entry, id of the new one, message JSON, now, conversation's ttl in ms (0 = none), log's ttl
--       in ms, prompt, completion and total tokens; then the new entry's fields, `end` and its JSON the last
-- Returns {'done', owner} (also when it was done before, by the same call), {'refused'}, or {'gone'}
local chat, messages, events, lease = unpack(KEYS)
local number, last, entry, record, now, ttl_ms, log_ttl_ms = unpack(ARGV, 1, 7)
local fields = {unpack(ARGV, 11)}

local top = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
local owner, active = unpack(redis.call('HMGET', chat, 'owner', 'active'))
if not owner then return {'gone'} end
if not top then
    -- A log that was lost leaves the conversation busy for ever, if nobody frees it.
    if active ~= number then return {'gone'} end
elseif top[1] == entry and table.concat(top[2], '\0') == table.concat(fields, '\0') then
    return {'done', owner}
elseif top[1] ~= last then
    return {'refused'}
else
    redis.call('XADD', events, entry, unpack(fields))
end

redis.call('HSET', messages, number, record)
redis.call('HSET', chat, 'updated', now)
redis.call('HINCRBY', chat, 'version', 1)
redis.call('HINCRBY', chat, 'bytes', #record)
redis.call('HINCRBY', chat, 'prompt_tokens', ARGV[8])
redis.call('HINCRBY', chat, 'completion_tokens', ARGV[9])
redis.call('HINCRBY', chat, 'total_tokens', ARGV[10])
if active == number then redis.call('HDEL', chat, 'active', 'runner', 'stop') end
redis.call('DEL', lease)
if ttl_ms ~= '0' then
    redis.call('PEXPIRE', chat, ttl_ms)
    redis.call('PEXPIRE', messages, ttl_ms)
end
redis.call('PEXPIRE', events, log_ttl_ms)
return {'done', owner}
