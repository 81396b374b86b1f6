# SPDX-License-Identifier: MIT
# What `cmake --install` installs. The shared library is the C API; the static one has the C++ API as well, whose types depend on the
# compiler's standard library and so do not belong into an ABI that is to last.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set_target_properties(tcpmig_sys tcpmig_conn tcpmig_capi PROPERTIES POSITION_INDEPENDENT_CODE ON)
set(library_objects "")
foreach(part capi conn handover sys)
  list(APPEND library_objects $<TARGET_OBJECTS:tcpmig_${part}>)
endforeach()

add_library(tcpmig_shared SHARED)
add_library(tcpmig_static STATIC ${library_objects})
add_library(tcpmig::tcpmig ALIAS tcpmig_shared)
add_library(tcpmig::tcpmig_static ALIAS tcpmig_static)
set(version_script ${CMAKE_CURRENT_LIST_DIR}/tcpmig.map)
# From the archives: what the C API does not reach (links, routes, the log) is not linked. The linker asks for one source.
set(empty ${CMAKE_CURRENT_BINARY_DIR}/tcpmig_shared.cpp)
file(GENERATE OUTPUT ${empty} CONTENT "// the objects come from the libraries below\n")
target_sources(tcpmig_shared PRIVATE ${empty})
target_link_libraries(tcpmig_shared PRIVATE $<LINK_LIBRARY:WHOLE_ARCHIVE,tcpmig_capi> tcpmig_conn)
target_link_options(tcpmig_shared PRIVATE LINKER:--version-script=${version_script} LINKER:--as-needed LINKER:-z,relro
                    LINKER:-z,now)
set_target_properties(tcpmig_shared PROPERTIES LINK_DEPENDS ${version_script} OUTPUT_NAME tcpmig EXPORT_NAME tcpmig
                                               VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
set_target_properties(tcpmig_static PROPERTIES OUTPUT_NAME tcpmig)
foreach(target tcpmig_shared tcpmig_static)
  target_include_directories(${target} INTERFACE $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include>
                                                 $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endforeach()
target_compile_features(tcpmig_static INTERFACE cxx_std_23)
target_link_libraries(tcpmig_static PRIVATE PkgConfig::LIBBPF PkgConfig::LIBMNL)

# Where the files of a package find the prefix: by their own place, so that `--prefix` and DESTDIR are right, too.
function(relative_prefix variable from)
  set(prefix ${CMAKE_INSTALL_PREFIX})
  if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
    file(RELATIVE_PATH up "/${from}" "/")
    set(prefix "\${pcfiledir}/${up}")
    string(REGEX REPLACE "/$" "" prefix ${prefix})
  endif()
  set(${variable} ${prefix} PARENT_SCOPE)
endfunction()
relative_prefix(PC_PREFIX ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
foreach(name tcpmig tcpmig-static)
  configure_file(cmake/${name}.pc.in cmake/${name}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cmake/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
          COMPONENT library)
endforeach()

set(package_directory ${CMAKE_INSTALL_LIBDIR}/cmake/tcpmig)
configure_package_config_file(cmake/tcpmig-config.cmake.in cmake/tcpmig-config.cmake
                              INSTALL_DESTINATION ${package_directory})
# 0.x: the next minor version may break what compiled with this one.
write_basic_package_version_file(cmake/tcpmig-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cmake/tcpmig-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/cmake/tcpmig-config-version.cmake
        DESTINATION ${package_directory} COMPONENT library)
install(TARGETS tcpmig_shared EXPORT tcpmig-shared LIBRARY COMPONENT library)
install(TARGETS tcpmig_static EXPORT tcpmig-static ARCHIVE COMPONENT library)
foreach(export tcpmig-shared tcpmig-static)
  install(EXPORT ${export} NAMESPACE tcpmig:: DESTINATION ${package_directory} COMPONENT library)
endforeach()
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library)

set(documents ${CMAKE_INSTALL_DATADIR}/doc/tcpmig)
install(FILES README.md LICENSE CHANGELOG.md DESTINATION ${documents} COMPONENT library)
install(DIRECTORY docs DESTINATION ${documents} COMPONENT library)
install(DIRECTORY examples DESTINATION ${documents} COMPONENT library USE_SOURCE_PERMISSIONS
        PATTERN __pycache__ EXCLUDE)
if(TARGET tcpmig)
  install(TARGETS tcpmig COMPONENT tool)
  install(TARGETS tcpmig-preload LIBRARY DESTINATION lib/tcpmig COMPONENT tool)  # where `tcpmig exec` looks
endif()
