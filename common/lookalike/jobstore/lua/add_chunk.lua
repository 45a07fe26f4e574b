-- Add a planned chunk. ARGV: id, token, items as JSON or '', cursor or '', counts as JSON, failure lines...
-- Returns the room left in the look-ahead, or -1 where the planner has to stop.
local id, token, items, cursor, counts = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if not holds('plan', id, nil, token) or get(id, 'cancel') == '1' or get(id, 'paused') then return -1 end
-- The first try may have reached us although its answer did not reach the planner.
if cursor ~= '' and get(id, 'cursor') == cursor then return room(id) end
if cursor ~= '' then set(id, 'cursor', cursor) end
-- A listing that gets on is not the one that kills its planner.
set(id, 'attempts', 1)
lease('plan', id, nil, LIMITS.lease)
add_failures(id, 7)
count(id, counts)
if items ~= '' then
  local job = job_key(id)
  local number = redis.call('HINCRBY', job, 'next_chunk', 1)
  redis.call('HSET', chunk_key(id, number), 'items', items, 'attempts', 0)
  redis.call('SADD', job .. ':chunks', number)
  redis.call('ZADD', job .. ':waiting', number, number)
  take_turn(id)
end
return room(id)
