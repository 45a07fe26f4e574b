-- What every script begins with: the clock, the keys, and the moves that several scripts share.
--
-- KEYS[1] is the prefix of all keys; ARGV[1] the limits as JSON (times in milliseconds). A script's own arguments
-- start at ARGV[2]. One Redis, no cluster: keys are made from the prefix.
--
--   job:ID                 hash    the record; for searches also token and attempts; for ingests the plan's state
--   job:ID:chunks          set     numbers of the chunks not yet accounted
--   job:ID:waiting         list    those of them that nobody holds
--   job:ID:chunk:N         hash    items (JSON), attempts, token
--   job:ID:rate            list    "milliseconds:done" of the last accounted chunks
--   job:ID:failures        list    the ledger, one JSON object each
--   ring                   zset    ingest jobs with waiting work, by turn
--   search                 list    searches nobody holds, oldest first
--   leases, delayed        zset    "what|ID|N" by the millisecond at which the lease ends or the delay is over
--   live:KIND              set     jobs that are not final
--   jobs                   zset    all jobs; equal scores, so by id, which is by age
--   tombstone:ID, idempotency:KEY

local P = KEYS[1]
local LIMITS = cjson.decode(ARGV[1])
local clock = redis.call('TIME')
local NOW = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local function job_key(id) return P .. 'job:' .. id end
local function chunk_key(id, number) return job_key(id) .. ':chunk:' .. number end
local function member(what, id, number) return what .. '|' .. id .. '|' .. (number or '') end
local function get(id, field) return redis.call('HGET', job_key(id), field) end
local function set(id, ...) redis.call('HSET', job_key(id), ...) end
local function is_final(state) return state ~= 'queued' and state ~= 'running' end
local function lease(what, id, number, duration) redis.call('ZADD', P .. 'leases', NOW + duration, member(what, id, number)) end
local function release(what, id, number)
  redis.call('ZREM', P .. 'leases', member(what, id, number))
  redis.call('ZREM', P .. 'delayed', member(what, id, number))
end

-- Give a job a turn at the end of the ring; one that has a turn keeps it unless `again` moves it back.
local function take_turn(id, again)
  redis.call('ZADD', P .. 'ring', again and 'XX' or 'NX', redis.call('INCR', P .. 'turn'), id)
end

local function start(id)
  if get(id, 'state') == 'queued' then set(id, 'state', 'running', 'started_at', NOW) end
end

local function drop_chunk(id, number)
  redis.call('DEL', chunk_key(id, number))
  redis.call('SREM', job_key(id) .. ':chunks', number)
  release('chunk', id, number)
end

-- Make a job final. From here on its keys have a time to live, and its id outlives them in a tombstone.
local function finish(id, state)
  local job = job_key(id)
  for _, number in ipairs(redis.call('SMEMBERS', job .. ':chunks')) do drop_chunk(id, number) end
  release('plan', id)
  release('search', id)
  redis.call('DEL', job .. ':waiting', job .. ':chunks')
  redis.call('ZREM', P .. 'ring', id)
  redis.call('SREM', P .. 'live:' .. get(id, 'kind'), id)
  set(id, 'state', state, 'finished_at', NOW)
  redis.call('HDEL', job, 'token')
  for _, suffix in ipairs({ '', ':rate', ':failures' }) do redis.call('PEXPIRE', job .. suffix, LIMITS.result_ttl) end
  redis.call('SET', P .. 'tombstone:' .. id, state, 'PX', LIMITS.result_ttl + LIMITS.tombstone_ttl)
  redis.call('PUBLISH', P .. 'final:' .. id, state)
end

-- End an ingest whose work is all accounted; true if it ended.
local function finish_if_complete(id)
  if redis.call('SCARD', job_key(id) .. ':chunks') > 0 then return false end
  local plan = get(id, 'plan')
  if get(id, 'cancel') == '1' then
    if plan == 'leased' then return false end
    finish(id, 'cancelled')
    return true
  end
  if plan ~= 'done' then return false end
  finish(id, 'succeeded')
  return true
end

-- Wake the planner when half of the look-ahead is used up; true if it is wanted.
local function plan_if_due(id)
  if get(id, 'plan') ~= 'idle' then return false end
  if redis.call('SCARD', job_key(id) .. ':chunks') > LIMITS.lookahead_chunks / 2 then return false end
  set(id, 'plan', 'waiting')
  take_turn(id)
  return true
end

-- Make work claimable again whose lease or delay is over.
local function put_back(what, id, number)
  local state = get(id, 'state')
  if not state or is_final(state) then
    if what == 'chunk' then redis.call('DEL', chunk_key(id, number)) end
    return
  end
  local cancelled = get(id, 'cancel') == '1'
  if what == 'search' then
    redis.call('HDEL', job_key(id), 'token')
    if cancelled then finish(id, 'cancelled') else redis.call('LPUSH', P .. 'search', id) end
  elseif what == 'plan' then
    redis.call('HDEL', job_key(id), 'token')
    set(id, 'plan', cancelled and 'done' or 'waiting')
    if cancelled then finish_if_complete(id) else take_turn(id) end
  elseif cancelled then
    drop_chunk(id, number)
    finish_if_complete(id)
  else
    redis.call('HDEL', chunk_key(id, number), 'token')
    redis.call('LPUSH', job_key(id) .. ':waiting', number)
    take_turn(id)
  end
end

-- Append to the failures ledger, up to its cap, and count them all.
local function add_failures(id, lines)
  local key = job_key(id) .. ':failures'
  local room = LIMITS.max_failures - redis.call('LLEN', key)
  for index, line in ipairs(lines) do
    if index <= room then redis.call('RPUSH', key, line) end
  end
  redis.call('HINCRBY', job_key(id), 'failed', #lines)
  if #lines > room then redis.call('HINCRBY', job_key(id), 'dropped', #lines - math.max(room, 0)) end
end

-- True while `token` is the one the holder of this work was given.
local function holds(what, id, number, token)
  local key = what == 'chunk' and chunk_key(id, number) or job_key(id)
  return token ~= '' and redis.call('HGET', key, 'token') == token
end
