# SPDX-License-Identifier: Apache-2.0
cmake_minimum_required(VERSION 3.25)
# cmake -DNM=<nm> -DMODULE=<file> -DEXPECTED=<regex;…> -P CheckExports.cmake
# Fails unless each symbol that MODULE exports matches one of EXPECTED and each of these matches.
execute_process(COMMAND "${NM}" -D --defined-only --format=posix "${MODULE}"
                OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" lines "${output}")
set(found "")
foreach(line IN LISTS lines)
  string(REGEX REPLACE "[ @].*" "" symbol "${line}")
  set(expected FALSE)
  foreach(pattern IN LISTS EXPECTED)
    if(symbol MATCHES "^${pattern}$")
      set(expected TRUE)
      list(APPEND found "${pattern}")
    endif()
  endforeach()
  if(NOT expected)
    message(SEND_ERROR "${MODULE} exports ${symbol}, which no server needs: hide it.")
  endif()
endforeach()
foreach(pattern IN LISTS EXPECTED)
  if(NOT pattern IN_LIST found)
    message(SEND_ERROR "${MODULE} does not export ${pattern}: define it extern \"C\" with default "
                       "visibility.")
  endif()
endforeach()
