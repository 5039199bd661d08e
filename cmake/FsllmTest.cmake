# SPDX-License-Identifier: Apache-2.0
find_package(GTest REQUIRED)
set(FSLLM_TEST_DATA "${PROJECT_SOURCE_DIR}/../shared/data" CACHE PATH "Real data sets and models for tests")
set(_python ${PROJECT_SOURCE_DIR}/.deps/venv/bin/python)
if(NOT EXISTS ${_python})
  set(_python "")
endif()
set(FSLLM_TEST_PYTHON "${_python}" CACHE FILEPATH "A Python with transformers and peft, for tests against them")
if(NOT FSLLM_TEST_PYTHON)  # configured before the packages were there
  set_property(CACHE FSLLM_TEST_PYTHON PROPERTY VALUE "${_python}")
endif()
set(FSLLM_LLAMA_PYTHON "" CACHE FILEPATH "A Python with llama_cpp for tests of GGUF files, if it is not FSLLM_TEST_PYTHON")
set(FSLLM_TEST_ENVIRONMENT
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
  OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp
  PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none
  PMIX_MCA_ptl_tcp_if_include=lo
  OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
  OMP_NUM_THREADS=1
  FSLLM_SOURCE_DIR=${PROJECT_SOURCE_DIR} FSLLM_BIN_DIR=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}
  "FSLLM_MPIEXEC=${MPIEXEC_EXECUTABLE}"
  "FSLLM_TEST_PYTHON=${FSLLM_TEST_PYTHON}" "FSLLM_LLAMA_PYTHON=${FSLLM_LLAMA_PYTHON}")
set(FSLLM_TEST_SLURM "${FSLLM_TEST_DATA}/../tools/minislurm.sh" CACHE FILEPATH
  "A script that brings up a Slurm cluster on this machine: up DIR NODES CPUS, down DIR")
list(APPEND FSLLM_TEST_ENVIRONMENT "FSLLM_TEST_SLURM=${FSLLM_TEST_SLURM}")
if(DEFINED ENV{FSLLM_TEST_DATA})
  list(APPEND FSLLM_TEST_ENVIRONMENT FSLLM_TEST_DATA=$ENV{FSLLM_TEST_DATA})
else()
  list(APPEND FSLLM_TEST_ENVIRONMENT FSLLM_TEST_DATA=${FSLLM_TEST_DATA})
endif()
if(FSLLM_SANITIZE)
  # The sanitizer's memmem() looks at the whole text at every call. HDF5 asks for what damaged lengths say, and copes with a
  # refusal.
  list(APPEND FSLLM_TEST_ENVIRONMENT
    ASAN_OPTIONS=detect_leaks=0:intercept_memmem=0:allocator_may_return_null=1:max_allocation_size_mb=1024:quarantine_size_mb=16)
endif()

set(FSLLM_TEST_PATIENCE 1 CACHE STRING "Factor of the tests' time limits")

# Names, labels and environment shared by every test.
function(fsllm_test_properties NAME NP TIMEOUT LABELS)
  math(EXPR limit "${TIMEOUT} * ${FSLLM_TEST_PATIENCE}")
  set_tests_properties(${NAME} PROPERTIES PROCESSORS ${NP} TIMEOUT ${limit} LABELS "${LABELS}"
    ENVIRONMENT "${FSLLM_TEST_ENVIRONMENT}" WORKING_DIRECTORY ${PROJECT_BINARY_DIR})
endfunction()

# fsllm_add_test(comm_test SOURCES comm_test.cpp DEPS fsllm_comm NP 1 2 4 LABELS mpi TIMEOUT 60)
# One GoogleTest binary; registered once a rank count (default: one process, no mpiexec).
function(fsllm_add_test NAME)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;NP;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  add_executable(${NAME} ${ARG_SOURCES})
  if(ARG_NP)
    target_link_libraries(${NAME} PRIVATE fsllm_options ${ARG_DEPS} fsllm_test_mpi_main)
  else()
    target_link_libraries(${NAME} PRIVATE fsllm_options ${ARG_DEPS} fsllm_test_main)
    add_test(NAME ${NAME} COMMAND ${NAME})
    fsllm_test_properties(${NAME} 1 ${ARG_TIMEOUT} "${ARG_LABELS}")
  endif()
  foreach(np IN LISTS ARG_NP)
    add_test(NAME ${NAME}.np${np} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${np} $<TARGET_FILE:${NAME}>)
    fsllm_test_properties(${NAME}.np${np} ${np} ${ARG_TIMEOUT} "${ARG_LABELS}")
  endforeach()
endfunction()

# fsllm_add_capability_tests(model_test FILTER): these tests of a binary again in the loops of processors with AVX2 alone,
# and in LibTorch's operators, which take the place of loops where there are none.
function(fsllm_add_capability_tests NAME FILTER)
  foreach(capability avx2 default)
    add_test(NAME ${NAME}.${capability} COMMAND ${CMAKE_COMMAND} -E env ATEN_CPU_CAPABILITY=${capability}
      $<TARGET_FILE:${NAME}> --gtest_filter=${FILTER})
    fsllm_test_properties(${NAME}.${capability} 1 120 unit)
  endforeach()
endfunction()

# fsllm_add_script_test(NAME script.sh ARGS... ): a shell test of the built executables.
# Exit code 77 means skipped, with the reason printed as "SKIPPED: ...".
function(fsllm_add_script_test NAME SCRIPT)
  cmake_parse_arguments(ARG "" "TIMEOUT;PROCESSORS" "ARGS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 180)
  endif()
  if(NOT ARG_PROCESSORS)
    set(ARG_PROCESSORS 1)
  endif()
  add_test(NAME ${NAME} COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/${SCRIPT} ${ARG_ARGS})
  fsllm_test_properties(${NAME} ${ARG_PROCESSORS} ${ARG_TIMEOUT} "${ARG_LABELS}")
  set_tests_properties(${NAME} PROPERTIES SKIP_RETURN_CODE 77)
endfunction()
