-- Claim the next piece of ingest work. ARGV: token.
-- Returns false, {'plan', id, attempts, request, cursor or false, room} or {'chunk', id, attempts, request, number, items}.
local token = ARGV[2]
while true do
  local id = redis.call('ZRANGE', P .. 'ring', 0, 0)[1]
  if not id then return false end
  local job = job_key(id)
  local plan = get(id, 'plan')
  local number = plan ~= 'waiting' and redis.call('LPOP', job .. ':waiting')
  if plan == 'waiting' or number then
    start(id)
    if plan ~= 'waiting' and redis.call('LLEN', job .. ':waiting') == 0 then
      redis.call('ZREM', P .. 'ring', id)
    else
      take_turn(id, true)
    end
    local request = get(id, 'request')
    if plan == 'waiting' then
      set(id, 'plan', 'leased', 'token', token)
      lease('plan', id, nil, LIMITS.lease)
      local room = math.max(0, LIMITS.lookahead_chunks - redis.call('SCARD', job .. ':chunks'))
      return { 'plan', id, redis.call('HINCRBY', job, 'attempts', 1), request, get(id, 'cursor'), room }
    end
    local chunk = chunk_key(id, number)
    redis.call('HSET', chunk, 'token', token)
    lease('chunk', id, number, LIMITS.lease)
    return { 'chunk', id, redis.call('HINCRBY', chunk, 'attempts', 1), request, number, redis.call('HGET', chunk, 'items') }
  end
  redis.call('ZREM', P .. 'ring', id)
end
