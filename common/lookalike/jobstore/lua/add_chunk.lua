-- Add a planned chunk. ARGV: id, token, items as JSON or '', their number, cursor or '', failure lines...
-- Returns the room left in the look-ahead, or -1 where the planner has to stop.
local id, token, items, count, cursor = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
if not holds('plan', id, nil, token) or get(id, 'cancel') == '1' then return -1 end
local job = job_key(id)
-- The first try may have reached us although its answer did not reach the planner.
if cursor ~= '' and get(id, 'cursor') == cursor then
  return math.max(0, LIMITS.lookahead_chunks - redis.call('SCARD', job .. ':chunks'))
end
local failures = {}
for index = 7, #ARGV do failures[#failures + 1] = ARGV[index] end
add_failures(id, failures)
if cursor ~= '' then set(id, 'cursor', cursor) end
-- A listing that gets on is not the one that kills its planner.
set(id, 'attempts', 1)
redis.call('HINCRBY', job, 'listed', count + #failures)
lease('plan', id, nil, LIMITS.lease)
if items ~= '' then
  local number = redis.call('HINCRBY', job, 'next_chunk', 1)
  redis.call('HSET', chunk_key(id, number), 'items', items, 'attempts', 0)
  redis.call('SADD', job .. ':chunks', number)
  redis.call('RPUSH', job .. ':waiting', number)
  take_turn(id)
end
return math.max(0, LIMITS.lookahead_chunks - redis.call('SCARD', job .. ':chunks'))
