-- SPDX-License-Identifier: Apache-2.0
-- The request stream of SPECweb99's static part over a set made by `mcs-specweb generate`.
--
--   wrk -t2 -c64 -d30s -s specweb99.lua http://HOST:PORT -- load=100 prefix=/specweb/
--
-- load    as given to mcs-specweb (default 100)
-- prefix  path of the set on the server, with a slash at its end (default /)
local common = dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "common.lua")

local class_probability = { .35, .50, .14, .01 }
local file_order = { 4, 3, 5, 2, 6, 1, 7, 8, 0 } -- from the most to the least popular

local prefix, directories, classes, ranks

function init(args)
  local options = common.parse(args, { load = "100", prefix = "/" })
  prefix = options.prefix
  local count = math.floor(25 + (400000 / 122000 * tonumber(options.load)) / 5)
  directories = common.zipf(count, 1)
  classes = common.distribution(class_probability)
  ranks = common.zipf(#file_order, 1)
end

function request()
  local directory = common.draw(directories) - 1
  local class = common.draw(classes) - 1
  local file = file_order[common.draw(ranks)]
  return common.get(string.format("%sdir%05d/class%d_%d", prefix, directory, class, file))
end
