# SPDX-License-Identifier: Apache-2.0
# fsllm_options: language level, warnings and sanitizers of our own code.
add_library(fsllm_options INTERFACE)
target_compile_options(fsllm_options INTERFACE -Wall -Wextra -Wshadow -Wno-unused-parameter -Wno-missing-field-initializers)
if(FSLLM_WERROR)
  target_compile_options(fsllm_options INTERFACE -Werror)
endif()
# For a build from nothing: what the sources of a module include is read once a batch, not once a file. Afterwards a change
# compiles its whole batch.
option(FSLLM_UNITY "Compile the sources of a module in batches" OFF)
if(FSLLM_UNITY)  # what one source declares is no outer name of the next
  target_compile_options(fsllm_options INTERFACE -Wno-shadow $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endif()
target_compile_definitions(fsllm_options INTERFACE OMPI_SKIP_MPICXX=1 MPICH_SKIP_MPICXX=1
                           $<$<CONFIG:Debug>:FSLLM_DEBUG=1>)
if(FSLLM_SANITIZE)
  target_compile_options(fsllm_options INTERFACE -fsanitize=${FSLLM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(fsllm_options INTERFACE -fsanitize=${FSLLM_SANITIZE})
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-Og -g1")
# Not for GCC: where one of its functions has an empty cold part, lld (14) keeps that part's unwind entry instead of the
# one of the function that begins at the same address, and an exception that passes there aborts the program.
find_program(LLD_PROGRAM ld.lld)
if(LLD_PROGRAM AND CMAKE_CXX_COMPILER_ID MATCHES Clang)
  add_link_options(-fuse-ld=lld)
endif()

# For tools/bundle.sh: a module is one file, not a part of every program. The objects are the same.
option(FSLLM_SHARED "Modules as shared libraries" OFF)
set(FSLLM_MODULE_KIND STATIC)
if(FSLLM_SHARED)
  set(FSLLM_MODULE_KIND SHARED)
endif()

function(fsllm_unity TARGET)
  if(FSLLM_UNITY)
    set_target_properties(${TARGET} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 20)
    target_compile_options(${TARGET} PRIVATE -include ${PROJECT_SOURCE_DIR}/src/core/json_instances.hpp)
  endif()
endfunction()

# fsllm_module(core SOURCES a.cpp b.cpp DEPS fmt::fmt): the static library fsllm_core.
function(fsllm_module NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(fsllm_${NAME} ${FSLLM_MODULE_KIND} ${ARG_SOURCES})
  set_target_properties(fsllm_${NAME} PROPERTIES DEFINE_SYMBOL "")
  target_include_directories(fsllm_${NAME} PUBLIC ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(fsllm_${NAME} PUBLIC ${ARG_DEPS} PRIVATE fsllm_options ${ARG_PRIVATE_DEPS})
  fsllm_unity(fsllm_${NAME})
endfunction()

# fsllm_program(fsllm_hpc SOURCES main.cpp DEPS fsllm_app): an installed executable.
function(fsllm_program NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${NAME} ${ARG_SOURCES})
  target_link_libraries(${NAME} PRIVATE fsllm_options ${ARG_DEPS})
  set_property(GLOBAL APPEND PROPERTY FSLLM_PROGRAMS ${NAME})
endfunction()
