# SPDX-License-Identifier: MIT
# What a machine wants besides program and library: units, man pages, completion; and the Debian package (`./dev deb`), which is what
# `cmake --install` installs, with the scripts of packaging/deb.
if(NOT TARGET tcpmig OR TCPMIG_FUZZ)
  return()
endif()
find_program(PYTHON3 python3 REQUIRED)

# Both pages are made of what the program says of itself and of the example, so that they cannot say anything else. The program of a
# build with sanitizers says the same, but slowly: there nobody installs it.
set(pages ${CMAKE_BINARY_DIR}/man/tcpmig.1 ${CMAKE_BINARY_DIR}/man/tcpmig.toml.5)
set(maker ${CMAKE_SOURCE_DIR}/packaging/man/make-pages)
add_custom_command(
  OUTPUT ${pages}
  COMMAND ${PYTHON3} -B ${maker} $<TARGET_FILE:tcpmig> ${CMAKE_SOURCE_DIR}/examples/tcpmig.toml ${CMAKE_BINARY_DIR}/man
  DEPENDS tcpmig ${maker} ${CMAKE_SOURCE_DIR}/examples/tcpmig.toml
  COMMENT "man pages"
  VERBATIM)
if(NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize")
  add_custom_target(man_pages ALL DEPENDS ${pages})
  install(FILES ${CMAKE_BINARY_DIR}/man/tcpmig.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT tool)
  install(FILES ${CMAKE_BINARY_DIR}/man/tcpmig.toml.5 DESTINATION ${CMAKE_INSTALL_MANDIR}/man5 COMPONENT tool)
endif()

# role(NAME "What it is" "CAPABILITIES" ["Further settings"]): one unit. All are alike in what they may do to the machine; root they
# are by name only, since secret, pins and sysctls belong to root.
function(role name what capabilities)
  set(ROLE ${name})
  set(WHAT ${what})
  set(CAPABILITIES ${capabilities})
  list(JOIN ARGN "\n" MORE)
  set(unit ${CMAKE_BINARY_DIR}/units/tcpmig-${name}.service)
  configure_file(packaging/systemd/role.service.in ${unit} @ONLY)
  install(FILES ${unit} DESTINATION lib/systemd/system COMPONENT tool)
endfunction()
set(bpf "CAP_NET_ADMIN CAP_BPF CAP_PERFMON CAP_NET_RAW")
role(switch "steers packets between clients, dispatchers and servers" "${bpf}")
role(dispatcher "accepts connections and hands them to servers" "${bpf} CAP_NET_BIND_SERVICE"
     "# Its listeners are in a control group of their own below this one (BPF programs see to their windows)." "Delegate=yes"
     "DevicePolicy=closed" "DeviceAllow=/dev/net/tun rw")
# A restored connection is bound to the service's port; the socket of a `handoff` may be anybody's.
role(agent "takes live connections in on a server" "${bpf} CAP_NET_BIND_SERVICE CAP_DAC_OVERRIDE"
     "DevicePolicy=closed" "DeviceAllow=/dev/net/tun rw")
configure_file(packaging/systemd/tcpmig-repair-helper.service ${CMAKE_BINARY_DIR}/units/ COPYONLY)
install(FILES packaging/systemd/tcpmig-repair-helper.service DESTINATION lib/systemd/system COMPONENT tool)

install(FILES packaging/completion/tcpmig DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT tool)
install(FILES packaging/completion/_tcpmig DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions COMPONENT tool)

include(cmake/Deb.cmake)
