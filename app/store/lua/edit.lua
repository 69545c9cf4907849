#!lua
-- Creates a conversation without messages, or changes fields of one.
--
-- KEYS  chat, messages
-- ARGV  owner, '1' = create, now, ttl in ms (0 = none), field, value, field, value, …
-- Returns 1, or 0 where there is no such conversation of this owner's (or, creating, where the id is taken)
local chat, messages = unpack(KEYS)
local owner, create, now, ttl_ms = unpack(ARGV, 1, 4)
local found = redis.call('HGET', chat, 'owner')
if create == '1' then
    if found then return 0 end
    redis.call('HSET', chat, 'owner', owner, 'created', now, 'updated', now, 'version', 0)
elseif found ~= owner then
    return 0
end
for i = 5, #ARGV, 2 do redis.call('HSET', chat, ARGV[i], ARGV[i + 1]) end
redis.call('HINCRBY', chat, 'version', 1)
if ttl_ms ~= '0' then
    redis.call('PEXPIRE', chat, ttl_ms)
    redis.call('PEXPIRE', messages, ttl_ms)
end
return 1
