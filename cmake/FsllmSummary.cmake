# SPDX-License-Identifier: Apache-2.0
message(STATUS "fsllm ${PROJECT_VERSION}: ${CMAKE_BUILD_TYPE}, ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")
message(STATUS "  LibTorch   ${LibTorch_VERSION} (${LibTorch_LIBRARY_DIR})")
message(STATUS "  MPI        ${MPI_C_VERSION} (${MPI_C_LIBRARIES})")
message(STATUS "  HDF5       ${HDF5_VERSION}")
message(STATUS "  Parquet    ${FSLLM_PARQUET_FACT} ${FsllmArrow_LIBRARY_DIR}")
message(STATUS "  CUDA/NCCL  ${FSLLM_CUDA}")
message(STATUS "  sanitizers ${FSLLM_SANITIZE}")
