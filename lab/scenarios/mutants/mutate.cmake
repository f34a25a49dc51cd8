# cmake -DINCLUDE=... -DHEADER=moat/... -DCOPY=... -P mutate.cmake: writes COPY, which is
# INCLUDE/HEADER with its mutations. Each must find its text exactly once.
file(READ "${INCLUDE}/${HEADER}" text)

function(moat_mutate header old new)
    if(NOT header STREQUAL HEADER)
        return()
    endif()
    string(FIND "${text}" "${old}" first)
    string(FIND "${text}" "${old}" last REVERSE)
    if(first EQUAL -1 OR NOT first EQUAL last)
        message(FATAL_ERROR "${HEADER} must contain this text of a mutation once:\n${old}\n"
            "Change it in lab/scenarios/mutants/mutations.cmake.")
    endif()
    string(REPLACE "${old}" "${new}" text "${text}")
    set(text "${text}" PARENT_SCOPE)
endfunction()

include(${CMAKE_CURRENT_LIST_DIR}/mutations.cmake)
file(WRITE "${COPY}" "${text}")
