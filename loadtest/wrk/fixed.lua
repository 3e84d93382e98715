-- SPDX-License-Identifier: Apache-2.0
-- Always the URL of the command line; the script only adds json=FILE for the results.
local common = dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "common.lua")

function init(args)
  common.parse(args, {})
end
