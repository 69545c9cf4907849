#!lua
-- Begins an answer within limits: `take`, and where that has taken all, `begin`, and its conversation into the owner's
-- list. One round trip instead of two; but its keys lie in several slots, so not where a store's scripts keep to one.
-- Repeating it takes and begins nothing more.
--
-- KEYS  the owner's list, the keys of `take`, those of `begin`
-- ARGV  how long the list stays, in ms (0: for ever), how many keys `take` has, its arguments, those of `begin`
-- Returns {what `take` returns, and where it has taken what `begin` returns}
local function take(KEYS, ARGV) --[[take]] end
local function begin(KEYS, ARGV) --[[begin]] end

local list, list_ms, limits = KEYS[1], ARGV[1], tonumber(ARGV[2])
local left = take({unpack(KEYS, 2, 1 + limits)}, {unpack(ARGV, 3, 3 + 2 * limits)})
if left[1] == 0 then return {left} end
local arguments = {unpack(ARGV, 4 + 2 * limits)}
local begun = begin({unpack(KEYS, 2 + limits)}, arguments)
if begun[1] == 'begun' then
    local created, conversation = begun[7], arguments[6]
    redis.call('ZADD', list, 'GT', created, conversation)
    if list_ms ~= '0' then redis.call('PEXPIRE', list, list_ms) end
end
return {left, begun}
