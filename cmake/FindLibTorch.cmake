# SPDX-License-Identifier: Apache-2.0
# Finds LibTorch without its own CMake package, which insists on a CUDA toolkit
# even for a CPU build. Looks in Torch_ROOT, CMAKE_PREFIX_PATH and .deps/libtorch.
#
# Defines: LibTorch::LibTorch, LibTorch_VERSION, LibTorch_INCLUDE_DIRS.
# With FSLLM_CUDA=ON also LibTorch::CUDA: torch_cuda, c10_cuda, the CUDA runtime and NCCL.

set(_libtorch_hints ${Torch_ROOT} $ENV{Torch_ROOT} ${PROJECT_SOURCE_DIR}/.deps/libtorch/torch)
find_path(LibTorch_INCLUDE_DIR ATen/ATen.h HINTS ${_libtorch_hints} PATH_SUFFIXES include
          NO_CMAKE_SYSTEM_PATH NO_SYSTEM_ENVIRONMENT_PATH)
find_library(LibTorch_CPU_LIBRARY torch_cpu HINTS ${_libtorch_hints} PATH_SUFFIXES lib
             NO_CMAKE_SYSTEM_PATH NO_SYSTEM_ENVIRONMENT_PATH)
find_library(LibTorch_C10_LIBRARY c10 HINTS ${_libtorch_hints} PATH_SUFFIXES lib
             NO_CMAKE_SYSTEM_PATH NO_SYSTEM_ENVIRONMENT_PATH)

if(LibTorch_INCLUDE_DIR AND EXISTS ${LibTorch_INCLUDE_DIR}/torch/version.h)
  set(_version_file ${LibTorch_INCLUDE_DIR}/torch/version.h)
elseif(LibTorch_INCLUDE_DIR)
  set(_version_file ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include/torch/version.h)
endif()
if(_version_file AND EXISTS ${_version_file})
  # From 2.10 on the numbers stand in headeronly/version.h.
  if(EXISTS ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h)
    set(_version_file ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h)
  endif()
  file(STRINGS ${_version_file} _version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH)")
  foreach(part MAJOR MINOR PATCH)
    string(REGEX MATCH "TORCH_VERSION_${part} ([0-9]+)" _ "${_version_lines}")
    set(LibTorch_VERSION_${part} ${CMAKE_MATCH_1})
  endforeach()
  set(LibTorch_VERSION ${LibTorch_VERSION_MAJOR}.${LibTorch_VERSION_MINOR}.${LibTorch_VERSION_PATCH})
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "Run tools/bootstrap.sh, or give -DTorch_ROOT=DIR (the folder with include/ and lib/).")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  if(LibTorch_VERSION VERSION_LESS 2.7.1)
    message(FATAL_ERROR "LibTorch ${LibTorch_VERSION} in ${LibTorch_INCLUDE_DIR} is too old (2.7.1 or later is needed). "
                        "Give another one with -DTorch_ROOT=DIR.")
  endif()
  set(LibTorch_INCLUDE_DIRS ${LibTorch_INCLUDE_DIR} ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include)
  get_filename_component(LibTorch_LIBRARY_DIR ${LibTorch_CPU_LIBRARY} DIRECTORY)
  # The wheel ships headers of libraries that we use in the system's version; those must be found first.
  set(_system_first ${CMAKE_BINARY_DIR}/system_headers_first)
  file(MAKE_DIRECTORY ${_system_first})
  foreach(shipped fmt nlohmann sentencepiece yaml-cpp)
    if(EXISTS ${LibTorch_INCLUDE_DIR}/${shipped} AND EXISTS /usr/include/${shipped})
      file(CREATE_LINK /usr/include/${shipped} ${_system_first}/${shipped} SYMBOLIC)
    endif()
  endforeach()
  if(fmt_DIR AND NOT EXISTS ${_system_first}/fmt)
    get_target_property(_fmt_include fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
    list(APPEND _system_first ${_fmt_include})
  endif()
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE ${_system_first})
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE ${LibTorch_INCLUDE_DIRS})
  target_link_libraries(LibTorch::LibTorch INTERFACE ${LibTorch_CPU_LIBRARY} ${LibTorch_C10_LIBRARY})
  target_link_options(LibTorch::LibTorch INTERFACE -Wl,--allow-shlib-undefined)

  # A wheel with the old C++ ABI links neither with yaml-cpp nor with GoogleTest.
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_LIBRARIES LibTorch::LibTorch)
  check_cxx_source_compiles("
    #include <c10/util/Exception.h>
    #include <string>
    int main(int argc, char**) {
      if (argc > 9) c10::detail::torchCheckFail(\"f\", \"f\", 1u, std::string(\"x\"));
      return 0;
    }" LibTorch_HAS_NEW_ABI)
  unset(CMAKE_REQUIRED_LIBRARIES)
  if(NOT LibTorch_HAS_NEW_ABI)
    message(FATAL_ERROR "LibTorch in ${LibTorch_INCLUDE_DIR} does not link with this compiler's std::string "
                        "(a wheel built with _GLIBCXX_USE_CXX11_ABI=0?). Use a LibTorch with the new C++ ABI, 2.7.1 or later.")
  endif()

  if(FSLLM_CUDA)
    find_library(LibTorch_CUDA_LIBRARY torch_cuda HINTS ${LibTorch_LIBRARY_DIR} NO_DEFAULT_PATH REQUIRED)
    find_library(LibTorch_C10_CUDA_LIBRARY c10_cuda HINTS ${LibTorch_LIBRARY_DIR} NO_DEFAULT_PATH REQUIRED)
    find_package(CUDAToolkit REQUIRED)
    find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${NCCL_ROOT} $ENV{NCCL_ROOT} ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include REQUIRED)
    find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${NCCL_ROOT} $ENV{NCCL_ROOT} ${CUDAToolkit_LIBRARY_DIR} PATH_SUFFIXES lib REQUIRED)
    # Apart from LibTorch::LibTorch: one module sees the headers, so all other objects are those of a CPU build.
    add_library(LibTorch::CUDA INTERFACE IMPORTED)
    target_include_directories(LibTorch::CUDA SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS} ${NCCL_INCLUDE_DIR})
    target_link_libraries(LibTorch::CUDA INTERFACE -Wl,--no-as-needed ${LibTorch_CUDA_LIBRARY} -Wl,--as-needed
                          ${LibTorch_C10_CUDA_LIBRARY} CUDA::cudart ${NCCL_LIBRARY})
  endif()
endif()
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY)
