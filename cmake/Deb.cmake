# SPDX-License-Identifier: MIT
# The Debian package: what `cmake --install` installs, stripped, below /usr. `./dev deb` makes it.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME tcpmig)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "The tcpmig authors <authors@tcpmig.example>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# For programs that are built with the static library.
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "bpftool, libbpf-dev, libmnl-dev")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "live migration of TCP connections")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
    "A dispatcher accepts a client's connection, reads the request, chooses a
server by what it says, and hands the whole connection over to it; XDP or tc
programs on a Linux router steer every later packet straight between client
and server. Both run unchanged and notice nothing.
.
This package has the program with its systemd units (none is started), the
library for programs that move their own connections, and its headers.")
set(scripts ${CMAKE_SOURCE_DIR}/packaging/deb)
file(WRITE ${CMAKE_BINARY_DIR}/shlibs "libtcpmig ${PROJECT_VERSION_MAJOR} tcpmig (>= ${PROJECT_VERSION})\n")
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${scripts}/postinst ${scripts}/prerm ${scripts}/postrm ${scripts}/triggers
                                       ${CMAKE_BINARY_DIR}/shlibs)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_PRE_BUILD_SCRIPTS ${scripts}/finish.cmake)
include(CPack)
