# The package moat-guard-dkms: the kernel module's sources, which DKMS builds for each kernel.
set(folder ${PROJECT_SOURCE_DIR}/kernel/moat_guard)
set(made ${CMAKE_BINARY_DIR}/moat_guard)
foreach(name dkms.conf postinst prerm)
    configure_file(${folder}/package/${name}.in ${made}/${name} @ONLY)
endforeach()
file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.[ch])
install(FILES ${sources} ${folder}/Kbuild ${folder}/Makefile ${made}/dkms.conf
    DESTINATION src/moat-guard-${PROJECT_VERSION} COMPONENT guard EXCLUDE_FROM_ALL)
install(PROGRAMS ${folder}/package/initramfs_hook DESTINATION share/initramfs-tools/hooks
    RENAME moat_guard COMPONENT guard EXCLUDE_FROM_ALL)

list(APPEND CPACK_COMPONENTS_ALL guard)
set(CPACK_DEBIAN_GUARD_PACKAGE_NAME moat-guard-dkms)
set(CPACK_DEBIAN_GUARD_PACKAGE_SECTION kernel)
set(CPACK_DEBIAN_GUARD_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_GUARD_PACKAGE_DEPENDS dkms)
set(CPACK_DEBIAN_GUARD_PACKAGE_SUGGESTS moat)
set(CPACK_DEBIAN_GUARD_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_GUARD_PACKAGE_CONTROL_EXTRA ${made}/postinst ${made}/prerm)
set(CPACK_COMPONENT_GUARD_DESCRIPTION "This is the Linux module that puts unmapped pages between the \
DMA mappings of kernel drivers. A device that writes past its buffer then causes an IOMMU fault. The \
command is in the package moat.")
