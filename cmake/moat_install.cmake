# `cmake --install`: the headers, the compiled rooms, the library for C, find_package(moat), moat.pc
# and moat-c.pc. What names no component is the command's. moat_package.cmake packs them.
include(CMakePackageConfigHelpers)

get_property(libraries GLOBAL PROPERTY MOAT_LIBRARIES)
install(TARGETS moat moat_all moat_c ${libraries} EXPORT moat_targets
    LIBRARY COMPONENT library NAMELINK_COMPONENT development
    ARCHIVE COMPONENT development)
install(DIRECTORY include/moat DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development
    FILES_MATCHING PATTERN *.hpp PATTERN *.h)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT license)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/moat)
install(EXPORT moat_targets NAMESPACE moat:: DESTINATION ${package_folder} COMPONENT development)
configure_package_config_file(cmake/moatConfig.cmake.in ${CMAKE_BINARY_DIR}/moatConfig.cmake
    INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/moatConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/moatConfig.cmake ${CMAKE_BINARY_DIR}/moatConfigVersion.cmake
    DESTINATION ${package_folder} COMPONENT development)

# moat.pc lists the static libraries in link order: each one before those that it uses.
set(ordered)
while(libraries)
    foreach(candidate ${libraries})
        set(used OFF)
        foreach(other ${libraries})
            get_target_property(uses ${other} LINK_LIBRARIES)
            string(REPLACE "::" "_" uses "${uses}")
            if(candidate IN_LIST uses)
                set(used ON)
            endif()
        endforeach()
        set(next ${candidate}) # a cycle has no order: take any
        if(NOT used)
            break()
        endif()
    endforeach()
    list(APPEND ordered ${next})
    list(REMOVE_ITEM libraries ${next})
endwhile()
set(libraries ${ordered})
get_property(system_libraries GLOBAL PROPERTY MOAT_SYSTEM_LIBRARIES)
list(APPEND libraries ${system_libraries})
list(TRANSFORM libraries PREPEND -l)
list(JOIN libraries " " MOAT_PC_LIBRARIES)
# The package may be moved: its prefix is told from where moat.pc lies.
file(RELATIVE_PATH MOAT_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
foreach(name moat moat-c)
    configure_file(cmake/${name}.pc.in ${CMAKE_BINARY_DIR}/${name}.pc @ONLY)
    install(FILES ${CMAKE_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
        COMPONENT development)
endforeach()

# All that is installed, for whoever wants no tests.
add_custom_target(moat_to_install DEPENDS moat_c moat_manual)
get_property(libraries GLOBAL PROPERTY MOAT_LIBRARIES)
add_dependencies(moat_to_install ${libraries})
if(TARGET moat_preload)
    add_dependencies(moat_to_install moat_preload)
endif()
