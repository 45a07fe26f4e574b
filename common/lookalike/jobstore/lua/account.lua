-- Add a chunk's counts to its job, once. ARGV: id, number, token, stored, unchanged, result JSON or '', failure lines...
-- Returns refused, accepted, finished or plan_due.
local id, number, token, stored, unchanged, result = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
if not holds('chunk', id, number, token) then return 'refused' end
local job = job_key(id)
local failures = {}
for index = 8, #ARGV do failures[#failures + 1] = ARGV[index] end
add_failures(id, failures)
redis.call('HINCRBY', job, 'unchanged', unchanged)
local done = redis.call('HINCRBY', job, 'stored', stored) + tonumber(get(id, 'unchanged')) + tonumber(get(id, 'failed'))
redis.call('RPUSH', job .. ':rate', NOW .. ':' .. done)
redis.call('LTRIM', job .. ':rate', -20, -1)
if result ~= '' then set(id, 'result', result) end
drop_chunk(id, number)
if finish_if_complete(id) then return 'finished' end
return plan_if_due(id) and 'plan_due' or 'accepted'
