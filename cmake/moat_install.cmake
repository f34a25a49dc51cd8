# `cmake --install`: the headers, the compiled rooms, find_package(moat) and moat.pc.
include(CMakePackageConfigHelpers)

get_property(libraries GLOBAL PROPERTY MOAT_LIBRARIES)
install(TARGETS moat moat_c ${libraries} EXPORT moat_targets)
install(DIRECTORY include/moat DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING
    PATTERN *.hpp PATTERN *.h)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/moat)
install(EXPORT moat_targets NAMESPACE moat:: DESTINATION ${package_folder})
configure_package_config_file(cmake/moatConfig.cmake.in ${CMAKE_BINARY_DIR}/moatConfig.cmake
    INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/moatConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/moatConfig.cmake ${CMAKE_BINARY_DIR}/moatConfigVersion.cmake
    DESTINATION ${package_folder})

get_property(system_libraries GLOBAL PROPERTY MOAT_SYSTEM_LIBRARIES)
list(APPEND libraries ${system_libraries})
list(TRANSFORM libraries PREPEND -l)
list(JOIN libraries " " MOAT_PC_LIBRARIES)
# The package may be moved: its prefix is told from where moat.pc lies.
file(RELATIVE_PATH MOAT_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/moat.pc.in ${CMAKE_BINARY_DIR}/moat.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/moat.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
