# Debian's packages, by `cpack` (`./dev package`): libmoat1, libmoat-dev, moat and
# moat-guard-dkms.
get_target_property(abi moat_c SOVERSION)
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME moat)
set(CPACK_PACKAGE_VENDOR "the maintainers of moat")
set(CPACK_PACKAGE_CONTACT "the maintainers of moat <maintainers@moat.invalid>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE
    GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
# Not stripped: reports name functions by the command's own symbols.
set(CPACK_STRIP_FILES OFF)
# What Debian wants of files, and other installations do not.
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/moat_package_files.cmake)
set(CPACK_MOAT_SOURCE ${PROJECT_SOURCE_DIR})

set(CPACK_COMPONENTS_ALL library development command)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_COMPONENT_DEVELOPMENT_DEPENDS library)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS ON)

set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME libmoat${abi})
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libs)
set(CPACK_COMPONENT_LIBRARY_DESCRIPTION "This is the library for C. It maps buffers for a device \
with unmapped pages around them, behind an IOMMU in the process or Linux VFIO, and tells which \
buffer a stray access left, and by how many bytes.")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libmoat-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "This is what programs are built \
with: the header for C, the C++23 library, and what CMake and pkg-config ask for.")

set(CPACK_DEBIAN_COMMAND_PACKAGE_NAME moat)
set(CPACK_DEBIAN_COMMAND_PACKAGE_SECTION devel)
set(CPACK_DEBIAN_COMMAND_PACKAGE_SUGGESTS qemu-system-x86)
set(CPACK_COMPONENT_COMMAND_DESCRIPTION "This is the command. It drives devices \
with guarded buffers and reports what they wrote or read outside, runs page-table code under every \
interleaving, and explains an IOMMU's faults.")
include(${CMAKE_CURRENT_LIST_DIR}/moat_guard.cmake)
include(CPack)
