# SPDX-License-Identifier: MIT
# bpf_skeletons(TARGET GLOB...): compiles each NAME.bpf.c for BPF and makes NAME.skel.h; TARGET is an interface library
# through which sources find the skeletons and depend on them.
find_program(BPF_CLANG NAMES clang-19 clang REQUIRED)
find_program(BPFTOOL bpftool PATHS /usr/sbin /sbin REQUIRED)
# gcc whatever the compiler of this build is: clang answers with an empty line.
find_program(GCC gcc REQUIRED)
execute_process(COMMAND ${GCC} -print-multiarch OUTPUT_VARIABLE MULTIARCH
                OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)

function(bpf_skeletons target)
  file(GLOB sources CONFIGURE_DEPENDS ${ARGN})
  set(directory ${CMAKE_CURRENT_BINARY_DIR}/${target})
  file(MAKE_DIRECTORY ${directory})
  set(skeletons)
  foreach(source IN LISTS sources)
    get_filename_component(name ${source} NAME)
    string(REPLACE ".bpf.c" "" name ${name})
    set(object ${directory}/${name}.bpf.o)
    set(compiled ${directory}/${name}.compiled.o)
    set(skeleton ${directory}/${name}.skel.h)
    add_custom_command(
      OUTPUT ${object}
      COMMAND ${BPF_CLANG} -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -I
              ${CMAKE_SOURCE_DIR}/bpf -isystem /usr/include/${MULTIARCH} -MD -MF ${object}.d -MT
              ${object} -c ${source} -o ${compiled}
      # The BPF linker leaves BTF and drops DWARF: less than half the size in the program.
      COMMAND ${BPFTOOL} gen object ${object} ${compiled}
      BYPRODUCTS ${compiled}
      DEPENDS ${source}
      DEPFILE ${object}.d
      COMMENT "BPF ${name}"
      VERBATIM)
    add_custom_command(
      OUTPUT ${skeleton}
      COMMAND sh -c "'${BPFTOOL}' gen skeleton '${object}' name ${name} > '${skeleton}.tmp' && mv '${skeleton}.tmp' '${skeleton}'"
      DEPENDS ${object}
      COMMENT "skeleton ${name}"
      VERBATIM)
    list(APPEND skeletons ${skeleton})
  endforeach()
  add_custom_target(${target}_generate DEPENDS ${skeletons})
  add_library(${target} INTERFACE)
  add_dependencies(${target} ${target}_generate)
  target_include_directories(${target} SYSTEM INTERFACE ${directory})
endfunction()
