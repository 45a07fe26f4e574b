-- What every script begins with: the clock, the keys, and the moves that several scripts share.
--
-- KEYS[1] is the prefix of all keys; ARGV[1] the limits as JSON (times in milliseconds). A script's own arguments
-- start at ARGV[2]. One Redis, no cluster: keys are made from the prefix.
--
--   job:ID                 hash    the record; for searches also token and attempts; for ingests the plan's state
--   job:ID:chunks          set     numbers of the chunks not yet accounted
--   job:ID:waiting         zset    those of them that nobody holds, by number
--   job:ID:chunk:N         hash    items (JSON), attempts, token, held (since its first claim)
--   job:ID:rate            list    "milliseconds:done" of the last changes of the counts
--   job:ID:failures        list    the ledger, one JSON object each
--   ring[:MODEL]           zset    jobs of the ingest lane with work that may be claimed, by pass; see take_turn
--   vtime[:MODEL]          string  the pass of the job claimed last from that ring
--   search[:MODEL]         list    searches nobody holds, oldest first
--   models:LANE            set     the models that have a ring, or a list of searches: what waits for their workers
--   leases, delayed        zset    "what|ID|N" by the millisecond at which the lease ends or the delay is over
--   webhooks               zset    final jobs by the millisecond at which the delivery of their webhook is due
--   live:POOL              set     jobs that are not final: ingests, searches, and those that are done in steps
--   live_bytes:POOL        string  bytes of their requests
--   jobs                   zset    all jobs; equal scores, so by id, which is by age
--   tombstone:ID           string  the state in which a job ended, for longer than its record
--   idempotency:KEY        hash    id of the job that the key made, digest of its request
--
-- Fields of job:ID beside those of the record: plan (waiting, leased, delayed: wanted by, held by, kept from planners;
-- idle: until chunks are done; between: its first phase finished, until all chunks are done; done), planner (who held
-- it last), model (the fingerprint its workers must have; without, any may do it), phase (list or prune), sync, cursor, listed, foreseen, next_chunk, stride, pass, paused, webhook (its URL),
-- webhook_token, idempotency (its key), ledger_bytes (of its lines), code:CODE (failures by code), READ_ms and its like (time by stage).
--
-- A job that is done in steps has a plan as well, which is one step: between two of them it waits, and its cursor is the
-- checkpoint as JSON.
--
-- A live job's keys have no time to live; `finish` gives them one. ring, search, models, leases, delayed and live*:POOL
-- hold nothing of ended jobs, and are gone when they are empty. jobs and vtime last while there is a live job; those of
-- models for as long as a record.

local P = KEYS[1]
local LIMITS = cjson.decode(ARGV[1])
local clock = redis.call('TIME')
local NOW = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local function job_key(id) return P .. 'job:' .. id end
local function chunk_key(id, number) return job_key(id) .. ':chunk:' .. number end
local function member(what, id, number) return what .. '|' .. id .. '|' .. (number or '') end
local function get(id, field) return redis.call('HGET', job_key(id), field) end
local function set(id, ...) redis.call('HSET', job_key(id), ...) end
local function pool(kind) return (kind == 'ingest' or kind == 'search') and kind or 'steps' end
local function is_final(state) return state ~= 'queued' and state ~= 'running' end
local function lease(what, id, number, duration) redis.call('ZADD', P .. 'leases', NOW + duration, member(what, id, number)) end
local function release(what, id, number)
  redis.call('ZREM', P .. 'leases', member(what, id, number))
  redis.call('ZREM', P .. 'delayed', member(what, id, number))
end
local function unfinished(id) return redis.call('SCARD', job_key(id) .. ':chunks') end
local function room(id) return math.max(0, LIMITS.lookahead_chunks - unfinished(id)) end

-- Tell those who watch a job that its record has changed.
local function touch(id)
  redis.call('PUBLISH', P .. 'changed:' .. id, redis.call('HINCRBY', job_key(id), 'version', 1))
end

-- Where a job waits: among what every worker can do, or among what only those with its model can.
local function line(name, model) return model and P .. name .. ':' .. model or P .. name end

local function leave_ring(id, model)
  redis.call('ZREM', line('ring', model), id)
  if model and redis.call('EXISTS', line('ring', model)) == 0 then redis.call('SREM', P .. 'models:ingest', model) end
end

-- Put a search into its list, at the end or, where it was claimed before, at the beginning.
local function join_searches(id, push)
  local model = get(id, 'model')
  redis.call(push, line('search', model), id)
  if model then redis.call('SADD', P .. 'models:search', model) end
end

local function leave_searches(id, model)
  redis.call('LREM', line('search', model), 1, id)
  if model and redis.call('EXISTS', line('search', model)) == 0 then redis.call('SREM', P .. 'models:search', model) end
end

-- Give a job a place in its ring, unless it has one or stands still; true if it has one then.
-- Stride scheduling: the smallest pass is claimed next, and a claim adds the job's stride to it, so that shares are as
-- 1/stride. A job that returns is no further back than it left, and has no credit for its absence. A new one is put half
-- a stride ahead of now: before half of its equals, and yet no stream of new jobs can keep an old one waiting for ever.
local function take_turn(id)
  if get(id, 'paused') then return false end
  local model = get(id, 'model')
  local first = redis.call('ZRANGE', line('ring', model), 0, 0, 'WITHSCORES')[2]
  local now = tonumber(redis.call('GET', line('vtime', model)) or first or 0)
  local pass = tonumber(get(id, 'pass') or now + get(id, 'stride') / 2)
  redis.call('ZADD', line('ring', model), 'NX', math.max(pass, now), id)
  if model then redis.call('SADD', P .. 'models:ingest', model) end
  return true
end

local function start(id)
  if get(id, 'state') ~= 'queued' then return end
  set(id, 'state', 'running', 'started_at', NOW)
  touch(id)
end

-- Add to a job's counts, given as JSON, and note that its work gets on.
local function count(id, counts)
  local job = job_key(id)
  local visible = redis.call('HDEL', job, 'waiting_for') == 1
  for name, number in pairs(cjson.decode(counts)) do
    redis.call('HINCRBY', job, name, number)
    visible = visible or name ~= 'listed'
  end
  if not visible then return end
  local done = 0
  for _, number in ipairs(redis.call('HMGET', job, 'added', 'changed', 'moved', 'unchanged', 'failed', 'processed')) do
    done = done + (tonumber(number) or 0)
  end
  redis.call('RPUSH', job .. ':rate', string.format('%d:%d', NOW, done))
  redis.call('LTRIM', job .. ':rate', -20, -1)
  touch(id)
end

-- Append the arguments from `first` on to the failures ledger, as far as its caps allow.
local function add_failures(id, first)
  if #ARGV < first then return end
  local key = job_key(id) .. ':failures'
  local lines, bytes, dropped = redis.call('LLEN', key), tonumber(get(id, 'ledger_bytes') or 0), 0
  for index = first, #ARGV do
    local larger = bytes + #ARGV[index]
    if lines < LIMITS.max_failures and larger <= LIMITS.max_failures_bytes then
      redis.call('RPUSH', key, ARGV[index])
      lines, bytes = lines + 1, larger
    else
      dropped = dropped + 1
    end
  end
  set(id, 'ledger_bytes', bytes)
  if dropped > 0 then redis.call('HINCRBY', job_key(id), 'dropped', dropped) end
end

local function drop_chunk(id, number)
  redis.call('DEL', chunk_key(id, number))
  redis.call('SREM', job_key(id) .. ':chunks', number)
  redis.call('ZREM', job_key(id) .. ':waiting', number)
  release('chunk', id, number)
end

-- Let a final job's keys live as long as results are kept, from `later` milliseconds on, and what outlives them longer.
local function keep(id, later)
  local job, ttl = job_key(id), LIMITS.result_ttl + later
  for _, suffix in ipairs({ '', ':rate', ':failures' }) do redis.call('PEXPIRE', job .. suffix, ttl) end
  local key = get(id, 'idempotency')
  if key then redis.call('PEXPIRE', P .. 'idempotency:' .. key, ttl) end
  local longest = ttl + LIMITS.tombstone_ttl
  redis.call('SET', P .. 'tombstone:' .. id, get(id, 'state'), 'PX', longest)
  local shared = { 'webhooks' }
  if redis.call('EXISTS', P .. 'live:ingest', P .. 'live:search', P .. 'live:steps') == 0 then shared = { 'webhooks', 'jobs', 'vtime' } end
  for _, name in ipairs(shared) do
    if redis.call('PTTL', P .. name) < longest then redis.call('PEXPIRE', P .. name, longest) end
  end
end

-- Make a job final. From here on its keys have a time to live, and its id outlives them in a tombstone.
local function finish(id, state)
  local job = job_key(id)
  for _, number in ipairs(redis.call('SMEMBERS', job .. ':chunks')) do drop_chunk(id, number) end
  release('plan', id)
  release('search', id)
  leave_ring(id, get(id, 'model'))
  local bytes = P .. 'live_bytes:' .. pool(get(id, 'kind'))
  redis.call('SREM', P .. 'live:' .. pool(get(id, 'kind')), id)
  if redis.call('DECRBY', bytes, redis.call('HSTRLEN', job, 'request')) <= 0 then redis.call('DEL', bytes) end
  redis.call('HDEL', job, 'token', 'paused', 'waiting_for')
  set(id, 'state', state, 'finished_at', NOW)
  if get(id, 'webhook') then redis.call('ZADD', P .. 'webhooks', NOW, id) end
  keep(id, 0)
  touch(id)
  redis.call('PUBLISH', P .. 'final:' .. id, state)
end

-- End an ingest whose work is all accounted; true if it ended.
local function finish_if_complete(id)
  if unfinished(id) > 0 then return false end
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

-- Wake the planner when half of the look-ahead is used up, or for its next phase; true if it is wanted at once.
local function plan_if_due(id)
  local plan = get(id, 'plan')
  local due = plan == 'idle' and unfinished(id) <= LIMITS.lookahead_chunks / 2 or plan == 'between' and unfinished(id) == 0
  if not due then return false end
  set(id, 'plan', 'waiting')
  return take_turn(id)
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
    if cancelled then finish(id, 'cancelled') else join_searches(id, 'LPUSH') end
  elseif what == 'plan' then
    redis.call('HDEL', job_key(id), 'token')
    set(id, 'plan', cancelled and 'done' or 'waiting')
    if cancelled then finish_if_complete(id) else take_turn(id) end
  elseif cancelled then
    drop_chunk(id, number)
    finish_if_complete(id)
  else
    redis.call('HDEL', chunk_key(id, number), 'token')
    redis.call('ZADD', job_key(id) .. ':waiting', number, number)
    take_turn(id)
  end
end

-- True while `token` is the one the holder of this work was given.
local function holds(what, id, number, token)
  local key = what == 'chunk' and chunk_key(id, number) or job_key(id)
  return token ~= '' and redis.call('HGET', key, 'token') == token
end
