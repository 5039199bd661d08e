# SPDX-License-Identifier: Apache-2.0
# Finds every library of the table in INSTALL, and gives each one target name.
find_package(Threads REQUIRED)

set(MPI_CXX_SKIP_MPICXX ON)
find_package(MPI REQUIRED COMPONENTS C CXX)

set(HDF5_PREFER_PARALLEL OFF)
find_package(HDF5 REQUIRED COMPONENTS C)

find_package(yaml-cpp REQUIRED)
if(NOT TARGET yaml-cpp::yaml-cpp)
  add_library(yaml-cpp::yaml-cpp ALIAS yaml-cpp)
endif()

if(POLICY CMP0167)  # Boost's own package
  cmake_policy(SET CMP0167 NEW)
endif()
find_package(Boost REQUIRED COMPONENTS program_options)
find_package(nlohmann_json REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(ZLIB REQUIRED)
find_package(OpenSSL 3 REQUIRED COMPONENTS Crypto)

find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc)
pkg_check_modules(LIBZIP REQUIRED IMPORTED_TARGET libzip)

# Debian 13's sentencepiece.pc asks for protobuf's, which its package does not bring: by header and library.
pkg_check_modules(SENTENCEPIECE QUIET sentencepiece)
find_path(SENTENCEPIECE_INCLUDE_DIR sentencepiece_processor.h HINTS ${SENTENCEPIECE_INCLUDE_DIRS} REQUIRED)
find_library(SENTENCEPIECE_LIBRARY sentencepiece HINTS ${SENTENCEPIECE_LIBRARY_DIRS} REQUIRED)
add_library(sentencepiece::sentencepiece INTERFACE IMPORTED)
target_include_directories(sentencepiece::sentencepiece SYSTEM INTERFACE ${SENTENCEPIECE_INCLUDE_DIR})
target_link_libraries(sentencepiece::sentencepiece INTERFACE ${SENTENCEPIECE_LIBRARY})

# Debian splits cpp-httplib into a header and a library, which must be told the same macros; elsewhere it is a header alone.
pkg_check_modules(HTTPLIB QUIET IMPORTED_TARGET cpp-httplib)
find_path(HTTPLIB_INCLUDE_DIR httplib.h HINTS ${HTTPLIB_INCLUDE_DIRS} REQUIRED)
add_library(httplib::httplib INTERFACE IMPORTED)
target_include_directories(httplib::httplib SYSTEM INTERFACE ${HTTPLIB_INCLUDE_DIR})
target_link_libraries(httplib::httplib INTERFACE $<TARGET_NAME_IF_EXISTS:PkgConfig::HTTPLIB> Threads::Threads)

find_package(LibTorch REQUIRED)

if(FSLLM_PARQUET STREQUAL "AUTO")
  find_package(FsllmArrow 23 QUIET)
elseif(FSLLM_PARQUET)
  find_package(FsllmArrow 23 REQUIRED)
endif()
if(TARGET FsllmArrow::Parquet)
  set(FSLLM_PARQUET_FACT "Apache Arrow ${FsllmArrow_VERSION}")
else()
  set(FSLLM_PARQUET_FACT "OFF")
endif()
