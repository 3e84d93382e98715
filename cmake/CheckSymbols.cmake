# SPDX-License-Identifier: Apache-2.0
cmake_minimum_required(VERSION 3.25)
# cmake -DNM=… -DLIBRARY=… -DRECORDED=… -P CheckSymbols.cmake
# Fails unless the library still exports each recorded symbol, and the record names each that it has.
execute_process(COMMAND "${NM}" -D --defined-only --format=posix "${LIBRARY}"
                OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "mcs_[a-z0-9_]+ T" exported "${output}")
list(TRANSFORM exported REPLACE " T$" "")
file(STRINGS "${RECORDED}" recorded)
foreach(symbol IN LISTS recorded)
  if(NOT symbol IN_LIST exported)
    message(SEND_ERROR "${symbol} is gone: programs that use it no longer start. Raise "
                       "MCS_API_VERSION_MAJOR and the SOVERSION, and record the new ABI.")
  endif()
endforeach()
foreach(symbol IN LISTS exported)
  if(NOT symbol IN_LIST recorded)
    message(SEND_ERROR "${symbol} is new: raise MCS_API_VERSION_MINOR and add it to ${RECORDED}")
  endif()
endforeach()
