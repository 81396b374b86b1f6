# SPDX-License-Identifier: MIT
# Run by CPack on what is to be packed: what Debian wants otherwise than `cmake --install` has it.
set(root ${CPACK_TEMPORARY_INSTALL_DIRECTORY})
set(documents ${root}/usr/share/doc/tcpmig)
file(MAKE_DIRECTORY ${root}/etc/tcpmig)
file(RENAME ${documents}/LICENSE ${documents}/copyright)

string(TIMESTAMP now "%a, %d %b %Y %H:%M:%S +0000" UTC)  # of SOURCE_DATE_EPOCH, where it is set
file(WRITE ${documents}/changelog
     "tcpmig (${CPACK_PACKAGE_VERSION}) unstable; urgency=medium\n\n  * What is new: CHANGELOG.md.\n\n -- ${CPACK_PACKAGE_CONTACT}  ${now}\n")
file(GLOB pages ${root}/usr/share/man/man*/*)
execute_process(COMMAND gzip -9nf ${documents}/changelog ${pages} COMMAND_ERROR_IS_FATAL ANY)
# A checkout with another umask makes no other package.
execute_process(COMMAND chmod -R u+rwX,go+rX,go-w ${root} COMMAND_ERROR_IS_FATAL ANY)
