# SPDX-License-Identifier: Apache-2.0
get_property(_programs GLOBAL PROPERTY FSLLM_PROGRAMS)
set_target_properties(${_programs} PROPERTIES
  INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${LibTorch_LIBRARY_DIR};${FsllmArrow_LIBRARY_DIR}" INSTALL_RPATH_USE_LINK_PATH ON)
add_custom_target(programs DEPENDS ${_programs})
install(TARGETS ${_programs} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY configs jobs DESTINATION ${CMAKE_INSTALL_DATADIR}/fsllm)
install(PROGRAMS tools/fsllm_requeue tools/fsllm_wandb.py DESTINATION ${CMAKE_INSTALL_BINDIR})
