# What the lint step builds of the headers, beside the tests: each of them alone by one
# compiler (the standard library is the same), all together by each in c++23 and in gnu++23, and the
# freestanding rooms as an embedder compiles and links them. Not part of "all".

file(GLOB_RECURSE headers RELATIVE ${PROJECT_SOURCE_DIR}/include CONFIGURE_DEPENDS
     ${PROJECT_SOURCE_DIR}/include/moat/*.hpp)

# A room is freestanding except for the hosted headers text.hpp and owned_tables.hpp; of sync, the
# concept and the serial policy are.
set(freestanding ${headers})
list(FILTER freestanding INCLUDE REGEX
     "^moat/(core/|page_table/|sync/(concept|lock|serial|detail/node)\\.hpp)")
list(FILTER freestanding EXCLUDE REGEX "/(text|owned_tables)\\.hpp$")

# One source a header, which includes it first, and twice.
function(moat_compile_alone target)
    set(sources)
    foreach(header ${ARGN})
        set(source ${PROJECT_BINARY_DIR}/headers/${header}.cpp)
        file(CONFIGURE OUTPUT ${source} CONTENT "#include \"@header@\"\n#include \"@header@\"\n" @ONLY)
        list(APPEND sources ${source})
    endforeach()
    add_library(${target} OBJECT EXCLUDE_FROM_ALL ${sources})
    target_link_libraries(${target} PRIVATE moat moat_warnings)
endfunction()

set(alone)
if(CMAKE_CXX_COMPILER_ID STREQUAL Clang)
    moat_compile_alone(headers_alone ${headers})
    set(alone headers_alone)
endif()

list(TRANSFORM headers REPLACE "(.+)" "#include \"\\1\"\n" OUTPUT_VARIABLE all_headers)
list(JOIN all_headers "" all_headers)
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/headers/all.cpp CONTENT "@all_headers@" @ONLY)
foreach(extensions OFF ON)
    add_library(headers_together_${extensions} OBJECT EXCLUDE_FROM_ALL
        ${PROJECT_BINARY_DIR}/headers/all.cpp)
    target_link_libraries(headers_together_${extensions} PRIVATE moat moat_warnings)
    set_target_properties(headers_together_${extensions} PROPERTIES CXX_EXTENSIONS ${extensions})
endforeach()

set(embedded_flags -ffreestanding -fno-exceptions -fno-rtti)
moat_compile_alone(headers_freestanding ${freestanding})
target_compile_options(headers_freestanding PRIVATE ${embedded_flags})

# -nostdlib leaves out the C library too; the example brings the four functions that a compiler
# calls by itself.
add_executable(freestanding_example EXCLUDE_FROM_ALL
    ${PROJECT_SOURCE_DIR}/examples/freestanding/main.cpp)
target_include_directories(freestanding_example PRIVATE ${PROJECT_SOURCE_DIR}/include)
target_link_libraries(freestanding_example PRIVATE moat_warnings)
target_compile_options(freestanding_example PRIVATE ${embedded_flags} -fno-stack-protector -fno-pie)
target_link_options(freestanding_example PRIVATE -nostdlib -static)

# Sanitizers and counters need a library; all other builds run it, too.
if(MOAT_TESTS AND CMAKE_SYSTEM_PROCESSOR STREQUAL x86_64
   AND NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize|--coverage")
    set_target_properties(freestanding_example PROPERTIES EXCLUDE_FROM_ALL OFF)
    add_test(NAME examples/freestanding COMMAND freestanding_example)
    set_tests_properties(examples/freestanding PROPERTIES TIMEOUT 60 LABELS examples)
endif()

add_custom_target(headers_lint
    DEPENDS ${alone} headers_together_OFF headers_together_ON headers_freestanding
    freestanding_example)
