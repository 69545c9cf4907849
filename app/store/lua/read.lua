#!lua flags=no-writes
-- Reads a conversation, or one message of it, at one moment: with the event log of the answer that runs.
--
-- KEYS  chat, messages, events prefix
-- ARGV  owner, number of the one message ('' = all), the version that the caller has ('' = none)
-- Returns {} where there is no such thing, {version, number of the answer that runs ('0': none)} where the caller has it
--         already, else with fields and values of the chat, number and record of each message, entries of the running
--         answer's log behind them.
--         The version is `<count of changes>`, and `-<last entry's id>` while an answer runs.
local chat, messages, events = unpack(KEYS)
local owner, number, have = unpack(ARGV)

local known = redis.call('HMGET', chat, 'owner', 'version', 'active')
if known[1] ~= owner then return {} end
local active = known[3]
local version = known[2]
if active then
    local top = redis.call('XREVRANGE', events .. active, '+', '-', 'COUNT', 1)[1]
    if top then version = version .. '-' .. top[1] end
end
if have == version then return {version, active or '0'} end

local records
if number == '' then
    records = redis.call('HGETALL', messages)
else
    local record = redis.call('HGET', messages, number)
    if not record then return {} end
    records = {number, record}
end
local entries = {}
if active and (number == '' or number == active) then entries = redis.call('XRANGE', events .. active, '-', '+') end
return {version, active or '0', redis.call('HGETALL', chat), records, entries}
