-- End a job as failed. ARGV: what, id, number or '', token, error JSON. Returns 1, or 0 where the claim lapsed.
local what, id, number, token, problem = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if not holds(what, id, number, token) then return 0 end
set(id, 'error', problem)
finish(id, 'failed')
return 1
