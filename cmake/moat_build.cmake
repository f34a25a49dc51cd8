# What every target of this project shares: the language, the warnings, ccache.

if(PROJECT_IS_TOP_LEVEL)
    set(CMAKE_CXX_STANDARD 23)
    set(CMAKE_CXX_STANDARD_REQUIRED ON)
    if(NOT DEFINED CMAKE_CXX_EXTENSIONS) # a preset asks for gnu++23
        set(CMAKE_CXX_EXTENSIONS OFF)
    endif()
    find_program(MOAT_CCACHE ccache)
    mark_as_advanced(MOAT_CCACHE)
    if(MOAT_CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
        # What ccache wants of precompiled headers.
        set(CMAKE_CXX_COMPILER_LAUNCHER env CCACHE_SLOPPINESS=pch_defines,time_macros ${MOAT_CCACHE})
    endif()
    # One source a target: every further one parses and instantiates the same headers again.
    set(CMAKE_UNITY_BUILD_BATCH_SIZE 0)
endif()

# g++ 12 sees an overlap in std::string's own operator+ (GCC bug 105651): hence -Wno-restrict.
add_library(moat_warnings INTERFACE)
target_compile_options(moat_warnings INTERFACE -Wall -Wextra -Wpedantic
    # In joined sources a local may have the name of what another file declares; lint joins none.
    $<$<NOT:$<BOOL:$<TARGET_PROPERTY:UNITY_BUILD>>>:-Wshadow>
    $<$<BOOL:${MOAT_WARNINGS_ARE_ERRORS}>:-Werror>
    $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety> $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)

# moat_add_folders(FOLDER...): adds each folder, and each folder in it, that has a CMakeLists.txt.
function(moat_add_folders)
    foreach(folder ${ARGN})
        file(GLOB lists CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/CMakeLists.txt
             ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*/CMakeLists.txt)
        foreach(list ${lists})
            get_filename_component(found ${list} DIRECTORY)
            add_subdirectory(${found})
        endforeach()
    endforeach()
endfunction()

# moat_fuzzed(TARGET): a fuzzer that links this library sees which of its lines an input reaches.
# AddressSanitizer's runtime has what the library then calls in all other programs.
function(moat_fuzzed target)
    if(MOAT_FUZZ AND CMAKE_CXX_FLAGS MATCHES "-fsanitize=address")
        target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
    endif()
endfunction()

# moat_library(ROOM SOURCE...): the compiled part of a room, as the library moat::ROOM.
function(moat_library room)
    add_library(moat_${room} STATIC ${ARGN})
    add_library(moat::${room} ALIAS moat_${room})
    # Fit to become a part of a shared library, libmoat.so or a user's own.
    set_target_properties(moat_${room} PROPERTIES EXPORT_NAME ${room}
        POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
        UNITY_BUILD ${MOAT_JOIN})
    target_link_libraries(moat_${room} PUBLIC moat PRIVATE $<BUILD_INTERFACE:moat_warnings>)
    set_property(GLOBAL APPEND PROPERTY MOAT_LIBRARIES moat_${room})
endfunction()
