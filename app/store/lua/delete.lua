#!lua flags=allow-oom
-- Deletes a conversation with all that belongs to it. Keys of idempotency stay for their day: a late repeat is not a new POST.
--
-- KEYS  chat, messages, events prefix
-- ARGV  owner
-- Returns {'deleted'}, {'not_found'} or {'busy', number}
local chat, messages, events = unpack(KEYS)
local known = redis.call('HMGET', chat, 'owner', 'active', 'next')
if known[1] ~= ARGV[1] then return {'not_found'} end
if known[2] then return {'busy', tonumber(known[2])} end
for number = 1, tonumber(known[3] or 1) - 1 do redis.call('UNLINK', events .. number) end
redis.call('UNLINK', chat, messages)
return {'deleted'}
