-- Replace a chunk by two, or drop it where the job is cancelled: nothing more of that is handed out.
-- ARGV: id, number, token, items JSON of the first, of the second. Returns 1, or 0 where the claim lapsed.
local id, number, token = ARGV[2], ARGV[3], ARGV[4]
if not holds('chunk', id, number, token) then return 0 end
if get(id, 'cancel') == '1' then
  drop_chunk(id, number)
  finish_if_complete(id)
  return 1
end
local job = job_key(id)
for index = 5, 6 do
  local half = redis.call('HINCRBY', job, 'next_chunk', 1)
  redis.call('HSET', chunk_key(id, half), 'items', ARGV[index], 'attempts', LIMITS.max_attempts - 1, 'held', 1)
  redis.call('SADD', job .. ':chunks', half)
  redis.call('ZADD', job .. ':waiting', half, half)
end
drop_chunk(id, number)
take_turn(id)
return 1
