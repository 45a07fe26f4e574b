-- Claim the next piece of work of the ingest lane. ARGV: token, the caller's name, ids of jobs whose requests the caller has...
-- Returns false, {'plan', id, attempts, request, phase, cursor or false, room}, {'step', id, attempts, request, kind,
-- checkpoint or false} or {'chunk', id, attempts, request, number, items, fresh}; the request of an ingest is '' where
-- the caller has it.
local token, caller, known = ARGV[2], ARGV[3], {}
for index = 4, #ARGV do known[ARGV[index]] = true end

-- Tell whether a plan is better left to whoever planned last: the listing is open there, and to open it anew takes a
-- look at the whole folder. But not where there is nothing else of the job to do.
local function is_anothers(id)
  local planner = get(id, 'planner')
  return planner and planner ~= caller and redis.call('EXISTS', job_key(id) .. ':waiting') == 1
end

-- Advance a job that had its turn, or take it out of the ring where nothing more of it waits.
local function turn(id, pass)
  redis.call('SET', P .. 'vtime', pass)
  local following = pass + get(id, 'stride')
  set(id, 'pass', following)
  if get(id, 'plan') == 'waiting' or redis.call('EXISTS', job_key(id) .. ':waiting') == 1 then
    redis.call('ZADD', P .. 'ring', following, id)
  else
    redis.call('ZREM', P .. 'ring', id)
  end
end

while true do
  local id, pass = unpack(redis.call('ZRANGE', P .. 'ring', 0, 0, 'WITHSCORES'))
  if not id then return false end
  local job = job_key(id)
  if get(id, 'plan') == 'waiting' and not is_anothers(id) then
    start(id)
    set(id, 'plan', 'leased', 'token', token, 'planner', caller)
    turn(id, pass)
    lease('plan', id, nil, LIMITS.lease)
    local attempts = redis.call('HINCRBY', job, 'attempts', 1)
    local kind = get(id, 'kind')
    if pool(kind) == 'steps' then return { 'step', id, attempts, get(id, 'request'), kind, get(id, 'cursor') } end
    return { 'plan', id, attempts, known[id] and '' or get(id, 'request'), get(id, 'phase'), get(id, 'cursor'), room(id) }
  end
  local number = redis.call('ZPOPMIN', job .. ':waiting')[1]
  if number then
    turn(id, pass)
    local chunk = chunk_key(id, number)
    redis.call('HSET', chunk, 'token', token)
    lease('chunk', id, number, LIMITS.lease)
    local attempts, fresh = redis.call('HINCRBY', chunk, 'attempts', 1), redis.call('HSETNX', chunk, 'held', 1)
    return { 'chunk', id, attempts, known[id] and '' or get(id, 'request'), number, redis.call('HGET', chunk, 'items'), fresh }
  end
  redis.call('ZREM', P .. 'ring', id)
end
