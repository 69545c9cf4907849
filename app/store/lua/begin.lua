#!lua
-- Begins an answer: checks owner, idempotency and the active answer, stores the user message, opens the event log with
-- its `start`, takes the lease, and returns the branch's latest messages for the prompt. All or nothing.
-- Repeating it with the same runner returns what the first time returned: a lost reply costs nothing.
--
-- KEYS  chat, messages, events prefix, lease prefix, and the idempotency key where there is one
-- Returns {'begun', number, user message's number, depth of the answer, model, system, created, record, record, …}
--         (newest record first), {'attach', number}, {'busy', number}, or {'not_found' | 'no_parent' | 'not_an_answer'
--         | 'key_reused' | 'full'}
local chat, messages, events, leases = unpack(KEYS)
local idempotency = KEYS[5] or ''
local owner, now, runner, lease_ms, ttl_ms, tag = unpack(ARGV, 1, 6)
local may_create, again, parent, user_tail = unpack(ARGV, 7, 10)
local model, default_model, digest, digest_ms, window = unpack(ARGV, 11, 15)
local title, system, chat_model = unpack(ARGV, 16, 18)
local most_messages, most_bytes = tonumber(ARGV[19]), tonumber(ARGV[20])

local function head_of(number)
    local record = redis.call('HGET', messages, number)
    if not record then return nil end
    local up, depth, role = string.match(record, '^{"parent":(%d+),"depth":(%d+),"role":"(%a+)"')
    return tonumber(up), tonumber(depth), role
end

local known = redis.call('HMGET', chat, 'owner', 'active', 'runner', 'next', 'head', 'system', 'model', 'title', 'bytes')
local exists, active = known[1], known[2]
if exists and known[1] ~= owner then return {'not_found'} end

local number, question, depth, created
if active and known[3] == runner then
    number = tonumber(active)
    question, depth = head_of(number)
    local record = redis.call('HGET', messages, number)
    model = string.match(redis.call('XRANGE', events .. number, '1-0', '1-0')[1][2][2], '"model":(".*")}$')
    model = cjson.decode(model)
    created = string.match(record, '"created_at":(%d+)')
else
    if idempotency ~= '' then
        local used = redis.call('GET', idempotency)
        if used then
            local answer, first_digest = string.match(used, '^(%d+) (.*)$')
            if first_digest ~= digest then return {'key_reused'} end
            if not exists then return {'not_found'} end
            return {'attach', tonumber(answer)}
        end
    end
    if not exists and may_create ~= '1' then return {'not_found'} end
    if active then return {'busy', tonumber(active)} end

    number = tonumber(known[4] or 1)
    if number >= most_messages or tonumber(known[9] or 0) >= most_bytes then return {'full'} end
    if again == '1' then
        local role
        question, depth, role = head_of(parent)
        if not question then return {'not_found'} end
        if role ~= 'assistant' then return {'not_an_answer'} end
    else
        local up = tonumber(parent == '' and (known[5] or 0) or parent)
        local up_depth = 0
        if up > 0 then
            local found, found_depth = head_of(up)
            if not found then return {'no_parent'} end
            up_depth = found_depth
        end
        question, depth = number, up_depth + 2
        number = number + 1
        redis.call('HSET', messages, question, '{"parent":' .. up .. ',"depth":' .. (up_depth + 1) .. ',' .. user_tail)
    end

    if not exists then
        redis.call('HSET', chat, 'owner', owner, 'created', now, 'version', 0, 'system', system, 'model', chat_model)
        known[6], known[7] = system, chat_model
    end
    if title ~= '' and (known[8] or '') == '' then redis.call('HSET', chat, 'title', title) end
    if model == '' then model = known[7] or '' end
    if model == '' then model = default_model end

    -- cjson writes `/` as `\/`; the log is to hold the bytes that are made again from the stored message later.
    local model_json = string.gsub(cjson.encode(model), '\\/', '/')
    created = now
    redis.call('HSET', messages, number, '{"parent":' .. question .. ',"depth":' .. depth
        .. ',"role":"assistant","status":"streaming","asked":' .. model_json .. ',"created_at":' .. now .. '}')
    redis.call('HSET', chat, 'next', number + 1, 'head', number, 'active', number, 'runner', runner, 'updated', now)
    redis.call('HINCRBY', chat, 'version', 1)
    redis.call('HINCRBY', chat, 'bytes', #user_tail)
    redis.call('XADD', events .. number, '1-0', 'start', '{"conversation":"conv_' .. tag .. '","message":"msg_' .. tag .. '_'
        .. number .. '","reply_to":"msg_' .. tag .. '_' .. question .. '","model":' .. model_json .. '}')
    redis.call('SET', leases .. number, runner, 'PX', lease_ms)
    if idempotency ~= '' then redis.call('SET', idempotency, number .. ' ' .. digest, 'PX', digest_ms) end
    if ttl_ms ~= '0' then
        for _, key in ipairs({chat, messages, events .. number}) do redis.call('PEXPIRE', key, ttl_ms) end
    end
end

local reply = {'begun', number, question, depth, model, known[6] or '', created}
local at, bytes, turn = question, 0, false
while at > 0 do
    local record = redis.call('HGET', messages, at)
    if not record then break end
    bytes = bytes + #record
    if bytes > tonumber(window) and turn then break end
    reply[#reply + 1] = record
    local up, role = string.match(record, '^{"parent":(%d+),"depth":%d+,"role":"(%a+)"')
    at = tonumber(up)
    turn = turn or role == 'user' -- the latest turn is read whole: its user message, and all behind it
end
return reply
