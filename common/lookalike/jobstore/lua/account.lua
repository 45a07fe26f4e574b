-- Add a chunk's counts to its job, once. ARGV: id, number, token, counts as JSON, result JSON or '', failure lines...
-- Returns refused, accepted, finished or plan_due.
local id, number, token, counts, result = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if not holds('chunk', id, number, token) then return 'refused' end
add_failures(id, 7)
count(id, counts)
if result ~= '' then set(id, 'result', result) end
drop_chunk(id, number)
if finish_if_complete(id) then return 'finished' end
return plan_if_due(id) and 'plan_due' or 'accepted'
