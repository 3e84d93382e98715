# SPDX-License-Identifier: Apache-2.0
# Warnings and sanitizers for everything in this build.
#
# Left out on purpose: -Wpedantic (rejects __int128 and the servers' macros) and -Wconversion
# (drowns packed-word code in casts).
option(MCS_WERROR "Treat warnings as errors" ON)
set(MCS_SANITIZE "" CACHE STRING "Argument of -fsanitize=, empty for none")

add_compile_options(-Wall -Wextra -Wshadow -Wcast-qual -Wformat=2 -Wundef -Wvla
                    $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>
                    $<$<COMPILE_LANGUAGE:CXX>:-Woverloaded-virtual>)
if(MCS_WERROR)
  add_compile_options(-Werror)
endif()

if(MCS_SANITIZE)
  add_compile_options(-fsanitize=${MCS_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${MCS_SANITIZE})
  add_compile_definitions(MCS_SANITIZED=1)
  if(MCS_SANITIZE MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # gcc only warns that it does not model stand-alone fences.
    add_compile_options(-Wno-tsan)
  endif()
endif()
