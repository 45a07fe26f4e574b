-- Keep a claim. ARGV: what, id, number or '', token. Returns held, paused, cancelled or lost.
local what, id, number, token = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if not holds(what, id, number, token) then return 'lost' end
lease(what, id, number, what == 'search' and LIMITS.search_lease or LIMITS.lease)
if get(id, 'cancel') == '1' then return 'cancelled' end
return get(id, 'paused') and 'paused' or 'held'
