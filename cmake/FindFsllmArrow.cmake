# SPDX-License-Identifier: Apache-2.0
# Finds Apache Arrow's C++ libraries, which read Parquet. Looks in CMAKE_PREFIX_PATH, Arrow_ROOT, .deps/arrow, then in
# the system. By header and library, as FindLibTorch.cmake: a Python wheel has no CMake package.
#
# Defines: FsllmArrow::Parquet, FsllmArrow_VERSION, FsllmArrow_LIBRARY_DIR.

set(_arrow_hints ${Arrow_ROOT} $ENV{Arrow_ROOT} ${PROJECT_SOURCE_DIR}/.deps/arrow)
find_path(FsllmArrow_INCLUDE_DIR parquet/arrow/reader.h HINTS ${_arrow_hints} PATH_SUFFIXES include)
find_library(FsllmArrow_PARQUET_LIBRARY parquet HINTS ${_arrow_hints} PATH_SUFFIXES lib)
find_library(FsllmArrow_ARROW_LIBRARY arrow HINTS ${_arrow_hints} PATH_SUFFIXES lib)

if(FsllmArrow_INCLUDE_DIR AND EXISTS ${FsllmArrow_INCLUDE_DIR}/arrow/util/config.h)
  file(STRINGS ${FsllmArrow_INCLUDE_DIR}/arrow/util/config.h _version_line REGEX "define ARROW_VERSION_STRING")
  string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" FsllmArrow_VERSION "${_version_line}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(FsllmArrow
  REQUIRED_VARS FsllmArrow_PARQUET_LIBRARY FsllmArrow_ARROW_LIBRARY FsllmArrow_INCLUDE_DIR
  VERSION_VAR FsllmArrow_VERSION
  REASON_FAILURE_MESSAGE "Run tools/bootstrap.sh --with-parquet, or give -DArrow_ROOT=DIR (the folder with include/ and lib/).")

if(FsllmArrow_FOUND AND NOT TARGET FsllmArrow::Parquet)
  get_filename_component(FsllmArrow_LIBRARY_DIR ${FsllmArrow_PARQUET_LIBRARY} DIRECTORY)
  add_library(FsllmArrow::Parquet INTERFACE IMPORTED)
  target_include_directories(FsllmArrow::Parquet SYSTEM INTERFACE ${FsllmArrow_INCLUDE_DIR})
  # The wheel's libarrow exports an OpenSSL of its own: the system's must be found first, by everybody.
  target_link_libraries(FsllmArrow::Parquet INTERFACE OpenSSL::Crypto ${FsllmArrow_PARQUET_LIBRARY} ${FsllmArrow_ARROW_LIBRARY})
endif()
mark_as_advanced(FsllmArrow_INCLUDE_DIR FsllmArrow_PARQUET_LIBRARY FsllmArrow_ARROW_LIBRARY)
