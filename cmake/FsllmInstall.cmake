# SPDX-License-Identifier: Apache-2.0
get_property(_programs GLOBAL PROPERTY FSLLM_PROGRAMS)
set_target_properties(${_programs} PROPERTIES
  INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${LibTorch_LIBRARY_DIR};${FsllmArrow_LIBRARY_DIR}" INSTALL_RPATH_USE_LINK_PATH ON)
add_custom_target(programs DEPENDS ${_programs})
install(TARGETS ${_programs} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY configs jobs DESTINATION ${CMAKE_INSTALL_DATADIR}/fsllm)
install(PROGRAMS tools/fsllm_requeue tools/fsllm_wandb.py DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES tools/fsllm_requeue.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)

# What depends on the folder of the installation, or is said by the programs themselves: written while it is installed.
set(_files "")
foreach(program IN LISTS _programs)
  list(APPEND _files "$<TARGET_FILE:${program}>")
endforeach()
get_filename_component(_mpi_bin "${MPIEXEC_EXECUTABLE}" DIRECTORY)
install(CODE "
  set(programs \"${_files}\")
  set(version \"${PROJECT_VERSION}\")
  set(description \"${PROJECT_DESCRIPTION}\")
  set(bin \"${CMAKE_INSTALL_BINDIR}\")
  set(share \"${CMAKE_INSTALL_DATADIR}\")
  set(man \"${CMAKE_INSTALL_MANDIR}\")
  set(mpi_bin \"${_mpi_bin}\")
  set(templates \"${PROJECT_SOURCE_DIR}/packaging/modulefile\")
  include(\"${PROJECT_SOURCE_DIR}/cmake/install_texts.cmake\")")
