# SPDX-License-Identifier: Apache-2.0
# Precompiled headers: what most sources read, read once. Not under sanitizers, so that one build finds missing includes.
option(FSLLM_PCH "Precompile the headers that cost most" OFF)
if(FSLLM_SANITIZE)
  set(FSLLM_PCH OFF)
endif()

# fsllm_precompiled_headers(light HEADERS <map> ... DEPS fmt::fmt): headers that fsllm_precompile can name.
function(fsllm_precompiled_headers NAME)
  cmake_parse_arguments(ARG "" "" "HEADERS;DEPS" ${ARGN})
  if(FSLLM_PCH)
    file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/precompiled/${NAME}.cpp CONTENT "// for its headers alone\n")
    add_library(fsllm_precompiled_${NAME} OBJECT EXCLUDE_FROM_ALL ${PROJECT_BINARY_DIR}/precompiled/${NAME}.cpp)
    target_link_libraries(fsllm_precompiled_${NAME} PRIVATE fsllm_options ${ARG_DEPS})
    target_precompile_headers(fsllm_precompiled_${NAME} PRIVATE ${ARG_HEADERS})
  endif()
endfunction()

# fsllm_precompile(fsllm_core light): the target's sources are compiled with these.
function(fsllm_precompile TARGET NAME)
  if(FSLLM_PCH)
    target_precompile_headers(${TARGET} REUSE_FROM fsllm_precompiled_${NAME})
    # Not the -fPIE of executables: the compiler takes only headers of the very same options.
    target_compile_options(${TARGET} PRIVATE -fPIC)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      target_compile_options(${TARGET} PRIVATE -fpch-preprocess)  # for ccache
      # GCC no longer knows these headers as the system's, in whose strings it sees what is not there.
      target_compile_options(${TARGET} PRIVATE -Wno-array-bounds -Wno-restrict -Wno-stringop-overflow -Wno-stringop-overread
        -Wno-error=maybe-uninitialized -Wno-error=free-nonheap-object -Wno-error=dangling-pointer -Wno-error=use-after-free)
    endif()
  endif()
endfunction()

set(FSLLM_LIGHT_HEADERS <algorithm> <array> <cmath> <cstdint> <filesystem> <fstream> <functional> <map> <memory> <optional>
  <set> <span> <string> <string_view> <unordered_map> <utility> <variant> <vector> <fmt/core.h> <fmt/ranges.h>
  ${PROJECT_SOURCE_DIR}/src/core/json_instances.hpp)
set(FSLLM_TORCH_HEADERS ${FSLLM_LIGHT_HEADERS} <ATen/core/Tensor.h> <ATen/core/grad_mode.h> <ATen/ops/cat.h>
  <ATen/ops/empty.h> <ATen/ops/equal.h> <ATen/ops/from_blob.h> <ATen/ops/full.h> <ATen/ops/mm.h> <ATen/ops/mul.h>
  <ATen/ops/tensor.h> <ATen/ops/zeros.h>)
set(_libraries fmt::fmt nlohmann_json::nlohmann_json LibTorch::LibTorch)
fsllm_precompiled_headers(light HEADERS ${FSLLM_LIGHT_HEADERS} DEPS ${_libraries})
fsllm_precompiled_headers(torch HEADERS ${FSLLM_TORCH_HEADERS} DEPS ${_libraries})
if(FSLLM_TESTS)
  find_package(GTest REQUIRED)
  set(_test_headers <gmock/gmock.h> <gtest/gtest.h>)
  list(APPEND _libraries GTest::gtest GTest::gmock)
  fsllm_precompiled_headers(light_tests HEADERS ${FSLLM_LIGHT_HEADERS} ${_test_headers} DEPS ${_libraries})
  fsllm_precompiled_headers(torch_tests HEADERS ${FSLLM_TORCH_HEADERS} ${_test_headers} DEPS ${_libraries})
endif()
