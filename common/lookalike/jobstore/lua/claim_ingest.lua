-- Claim the next piece of work of the ingest lane. ARGV: token, the caller's name, its model or '', whether what only
-- that model's workers can do comes first this time (1 or 0), ids of jobs whose requests the caller has...
-- Returns false, {'plan', id, attempts, request, phase, cursor or false, room}, {'step', id, attempts, request, kind,
-- checkpoint or false} or {'chunk', id, attempts, request, number, items, fresh}; the request of an ingest is '' where
-- the caller has it.
local token, caller, own, known = ARGV[2], ARGV[3], ARGV[4], {}
local rings = { false }
if own ~= '' then table.insert(rings, ARGV[5] == '1' and 1 or 2, own) end
for index = 6, #ARGV do known[ARGV[index]] = true end

-- Tell whether a plan is better left to whoever planned last: the listing is open there, and to open it anew takes a
-- look at the whole folder. But not where there is nothing else of the job to do.
local function is_anothers(id)
  local planner = get(id, 'planner')
  return planner and planner ~= caller and redis.call('EXISTS', job_key(id) .. ':waiting') == 1
end

-- Advance a job that had its turn, or take it out of the ring where nothing more of it waits.
local function turn(id, pass, model)
  redis.call('SET', line('vtime', model), pass)
  if model then redis.call('PEXPIRE', line('vtime', model), LIMITS.result_ttl + LIMITS.tombstone_ttl) end
  local following = pass + get(id, 'stride')
  set(id, 'pass', following)
  if get(id, 'plan') == 'waiting' or redis.call('EXISTS', job_key(id) .. ':waiting') == 1 then
    redis.call('ZADD', line('ring', model), following, id)
  else
    leave_ring(id, model)
  end
end

-- The job whose turn it is, its pass, and the model whose ring it is in.
local function next_job()
  for _, model in ipairs(rings) do
    local id, pass = unpack(redis.call('ZRANGE', line('ring', model), 0, 0, 'WITHSCORES'))
    if id then return id, pass, model end
  end
end

while true do
  local id, pass, model = next_job()
  if not id then return false end
  local job = job_key(id)
  if get(id, 'plan') == 'waiting' and not is_anothers(id) then
    start(id)
    set(id, 'plan', 'leased', 'token', token, 'planner', caller)
    turn(id, pass, model)
    lease('plan', id, nil, LIMITS.lease)
    local attempts = redis.call('HINCRBY', job, 'attempts', 1)
    local kind = get(id, 'kind')
    if pool(kind) == 'steps' then return { 'step', id, attempts, get(id, 'request'), kind, get(id, 'cursor') } end
    return { 'plan', id, attempts, known[id] and '' or get(id, 'request'), get(id, 'phase'), get(id, 'cursor'), room(id) }
  end
  local number = redis.call('ZPOPMIN', job .. ':waiting')[1]
  if number then
    turn(id, pass, model)
    local chunk = chunk_key(id, number)
    redis.call('HSET', chunk, 'token', token)
    lease('chunk', id, number, LIMITS.lease)
    local attempts, fresh = redis.call('HINCRBY', chunk, 'attempts', 1), redis.call('HSETNX', chunk, 'held', 1)
    return { 'chunk', id, attempts, known[id] and '' or get(id, 'request'), number, redis.call('HGET', chunk, 'items'), fresh }
  end
  leave_ring(id, model)
end
