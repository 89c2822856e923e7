-- How many turns one question takes at most, and then what is asked, in order: see `limiter.rs`.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local most_turns = tonumber(ARGV[1])
local argument, key = 1, 0
local function number()
    argument = argument + 1
    return tonumber(ARGV[argument])
end
local function name()
    key = key + 1
    return KEYS[key]
end
local function read()
    return {
        key = name(), interval = number(), burst = number(), slowest = number(),
        memory = number(), turns = number(),
    }
end
local function find(limit)
    local at, taken = string.match(redis.call('GET', limit.key) or '', '^(%d+) (%d+)$')
    return tonumber(at), tonumber(taken)
end
local function step(limit, taken)
    local doublings = math.min(30, math.max(0, taken + 1 - limit.burst))
    return math.min(limit.interval * 2 ^ doublings, limit.slowest)
end
local function keep(limit, at, taken)
    local time = math.max(1, math.ceil((at - now + limit.memory) / 1000))
    redis.call('SET', limit.key, string.format('%.0f %.0f', at, taken), 'PX', time)
end

local answers = {}
local function answer(known, limit, wait, left, whole_in)
    known = known and 1 or 0
    for _, value in ipairs({ known, limit, math.ceil(wait), left, math.ceil(whole_in) }) do
        answers[#answers + 1] = value
    end
end

local function question()
    local count, patience, known = number(), number(), false
    if number() == 1 then
        known = redis.call('EXISTS', name()) == 1
    end
    local limits = {}
    for place = 1, count do
        local limit = read()
        limit.place = place - 1
        if number() == 0 or not known then
            limits[#limits + 1] = limit
        end
    end
    return limits, patience, known
end
local function take()
    local limits, patience, known = question()
    local refuses, longest = nil, patience
    for _, limit in ipairs(limits) do
        local at, taken = find(limit)
        limit.at, limit.taken, limit.span = now, 0, limit.interval * (limit.burst - 1)
        local furthest = math.max(limit.slowest, limit.interval * most_turns)
        -- A turn that far off was taken before the clock was put back.
        if at and at <= now + limit.span + furthest + patience then
            limit.at, limit.taken = math.max(at, now), taken
        end
        limit.wait = math.max(0, limit.at - limit.span - now)
        if limit.wait > longest then
            refuses, longest = limit, limit.wait
        end
    end
    if refuses then
        return answer(known, refuses.place, longest, 0, refuses.at - now)
    end
    local nearest, least, delay = nil, math.huge, 0
    for _, limit in ipairs(limits) do
        local at = limit.at + step(limit, limit.taken) * limit.turns
        local taken = limit.taken + limit.turns
        keep(limit, at, taken)
        local slack, left = limit.span - (at - now), 0
        if slack >= 0 then
            left = math.min(limit.burst, math.floor(slack / step(limit, taken)) + 1)
        end
        if left < least then
            nearest, least = limit, left
        end
        limit.at, delay = at, math.max(delay, limit.wait)
    end
    if nearest then
        answer(known, nearest.place, delay, least, nearest.at - now)
    else
        answer(known, -1, 0, 0, 0)
    end
end
local function give_back()
    local count, known_for = number(), number()
    if known_for > 0 then
        redis.call('SET', name(), 1, 'PX', known_for)
    end
    for _ = 1, count do
        local limit, is_cleared = read(), number() == 1
        local at, taken = find(limit)
        if at then
            taken = taken - limit.turns
            at = math.max(now, at - step(limit, math.max(0, taken)) * limit.turns)
            if is_cleared or taken <= 0 or at + limit.memory <= now then
                redis.call('DEL', limit.key)
            else
                keep(limit, at, taken)
            end
        end
    end
    answer(false, -1, 0, 0, 0)
end

while argument < #ARGV do
    if number() == 1 then take() else give_back() end
end
return answers
