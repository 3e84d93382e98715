-- SPDX-License-Identifier: Apache-2.0
-- A Zipf (or uniform) request stream over a list of paths: your own site.
--
--   wrk -t2 -c64 -d30s -s zipf.lua http://HOST:PORT -- paths=paths.txt alpha=0.9
--
-- paths   file with one URL path per line
-- alpha   exponent; 0 is uniform (default 1)
-- order   "shuffled" (default): popularity ranks are dealt to the paths at random, the same way in
--         every thread; "given": the first line is the most popular path
local common = dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "common.lua")

local paths, ranks = {}, nil

function init(args)
  local options = common.parse(args, { paths = "", alpha = "1", order = "shuffled" })
  if options.paths == "" then
    error("give the file with the paths: paths=FILE")
  end
  for line in io.lines(options.paths) do
    if line ~= "" then
      table.insert(paths, line)
    end
  end
  if #paths == 0 then
    error(options.paths .. " names no path")
  end
  if options.order == "shuffled" then
    math.randomseed(tonumber(options.seed))
    for i = #paths, 2, -1 do
      local j = math.random(i)
      paths[i], paths[j] = paths[j], paths[i]
    end
    math.randomseed(tonumber(options.seed) + 1 + (thread_number or 0))
  end
  ranks = common.zipf(#paths, tonumber(options.alpha))
end

function request()
  return common.get(paths[common.draw(ranks)])
end
